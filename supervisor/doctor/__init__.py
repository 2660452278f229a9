"""The doctor: looks at a host, tries what containers need of it, and says what is well, what is not and what to do.

Standard library only, with whatever it imports: it also works from a source tree before anything is installed.
"""
