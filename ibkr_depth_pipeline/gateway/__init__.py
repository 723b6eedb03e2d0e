"""The client of TWS and IB Gateway: messages to events and rows, paced requests, and the choice of venues."""
