"""What the Makefile runs to make images and packages."""
