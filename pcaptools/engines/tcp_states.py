"""The states of a TCP connection, and what happens to each at an event: RFC 9293, figure 5."""

from __future__ import annotations

CLOSED, LISTEN, SYN_SENT, SYN_RECEIVED, ESTABLISHED = "closed", "listen", "syn sent", "syn received", "established"
FIN_WAIT_1, FIN_WAIT_2, CLOSING, TIME_WAIT = "fin wait 1", "fin wait 2", "closing", "time wait"
CLOSE_WAIT, LAST_ACK = "close wait", "last ack"

# Events: what is done here (open, listen, close), and what arrives (syn, syn ack, ack: of our SYN,
# fin, fin ack: of our FIN). A reset and a given-up retransmission close in every state. An event that
# is not in a state's row changes nothing.
TRANSITIONS = {
    (CLOSED, "open"): SYN_SENT,
    (CLOSED, "listen"): LISTEN,
    (LISTEN, "syn"): SYN_RECEIVED,
    (SYN_SENT, "syn"): SYN_RECEIVED,  # both opened at once
    (SYN_SENT, "syn ack"): ESTABLISHED,
    (SYN_RECEIVED, "ack"): ESTABLISHED,
    (SYN_RECEIVED, "fin"): CLOSE_WAIT,
    (ESTABLISHED, "close"): FIN_WAIT_1,
    (ESTABLISHED, "fin"): CLOSE_WAIT,
    (FIN_WAIT_1, "fin ack"): FIN_WAIT_2,
    (FIN_WAIT_1, "fin"): CLOSING,  # both closed at once
    (FIN_WAIT_2, "fin"): TIME_WAIT,
    (CLOSING, "fin ack"): TIME_WAIT,
    (CLOSE_WAIT, "close"): LAST_ACK,
    (LAST_ACK, "fin ack"): CLOSED,
}
