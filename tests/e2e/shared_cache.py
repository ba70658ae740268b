"""The cache of bases that users have, which tests do not touch."""

import os

from strongroom.bases import build

SHARED = build.default_cache(dict(os.environ))
