"""Which symbols hold the few depth subscriptions, and when. Pure: time is an argument, events in, commands out."""
