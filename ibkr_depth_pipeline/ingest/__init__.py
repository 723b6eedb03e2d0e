"""Gateway -> books -> Redis, under the rotation's direction. pipeline.py decides, session.py carries out."""
