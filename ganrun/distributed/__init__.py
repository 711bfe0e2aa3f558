"""Workers: what each does, and how Ray starts them."""
