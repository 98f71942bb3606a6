# An example that a page shows. It reads its broker's address when it is imported, as Celery's
# applications do, so --doctest-modules cannot import it: test_celery starts it with one.
collect_ignore = ["celery_uploads.py"]
