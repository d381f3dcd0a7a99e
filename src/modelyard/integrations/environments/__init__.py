"""Installers that build environments from lock files, one a module, reached by name."""
