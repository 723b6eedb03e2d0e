"""When exchanges, contracts and a whole universe are open. Pure, but for the process that reads the calendars."""
