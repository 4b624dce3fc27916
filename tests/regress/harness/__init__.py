"""The parts that the regress tests are made of: see each module's own words."""

from .client import Client, Reply
from .exchange import FakeExchange
from .journal import DEADLINE_S, Journal
from .postern import Postern
from .tls import Certificates

__all__ = ["Certificates", "Client", "DEADLINE_S", "FakeExchange", "Journal", "Postern", "Reply"]
