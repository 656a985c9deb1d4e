"""What `fit_wals` alternates: ratings in blocks of one size, and the half step of one side."""
