"""scw-signal-state with everything imported at its start, as most programs do."""

import argparse
import json
import logging

import tenacity
import urllib3

from scw_signal.cli.process import run

EAGER = (argparse, json, logging, tenacity, urllib3)

run("signal_state")
