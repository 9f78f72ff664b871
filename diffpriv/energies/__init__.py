"""Energy functions of stage 2: scalar per face, low where the face is as the task wants it."""
