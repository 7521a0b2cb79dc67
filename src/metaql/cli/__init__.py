"""The command line: each command parses, calls the library and prints.

Data goes to stdout, words to stderr.
"""
