"""dlib's face recogniser as our `FaceRecognizer`: export.cpp writes its numbers as XML, convert.py reads them."""
