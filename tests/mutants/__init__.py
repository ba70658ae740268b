"""`make mutants`: change the judging modules in many small ways, and see whether a test notices."""
