"""Three ways to learn from people, on users whose taste is known: PAL, CIPHER and CHES."""
