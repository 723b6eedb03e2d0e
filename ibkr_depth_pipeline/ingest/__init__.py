"""Gateway -> books -> Redis, under the rotation's direction. pipeline.py decides, deeds.py carries out.

session.py puts the parts together and is the course of a run.
"""
