"""Every private or undocumented name of another library that segzoo leans on, each with a test of its own.

A release of such a library may take these names away without a word. They stand here and nowhere else, so that
`tests/unit/test_compat.py` says which one is gone and what it was for, and one function is mended. `parsers` needs nothing but
Python, `training` loads Lightning only where it needs a class of it, `tensors` loads torch and `networks` the model libraries.
"""
