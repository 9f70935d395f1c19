"""What commands read of a user's own: text files and files of labelled text."""
