"""What the trained policies show of the paper's claims."""
