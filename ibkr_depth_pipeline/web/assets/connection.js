// The socket to the server: connects again by itself, and acknowledges what it got so that the server can thin.

const ACKNOWLEDGE_EVERY = 6;
const ACKNOWLEDGE_MS = 4000; // at the latest with the next message
const FIRST_PAUSE_MS = 250;
const LONGEST_PAUSE_MS = 2000;

export class Connection {
  #socket = null;
  #symbol = "";
  #got = 0;
  #acknowledged = 0;
  #pause = FIRST_PAUSE_MS;
  #decoder = new TextDecoder();

  /** handlers: message(object), open(), closed(). */
  constructor(handlers) {
    this.handlers = handlers;
    this.#connect();
  }

  /** Want the frames of `symbol`; "" for none. */
  watch(symbol) {
    this.#symbol = symbol;
    this.#send({ watch: symbol });
  }

  #connect() {
    const scheme = location.protocol === "https:" ? "wss:" : "ws:";
    const socket = new WebSocket(`${scheme}//${location.host}/live`);
    socket.binaryType = "arraybuffer";
    socket.onopen = () => {
      this.#got = 0;
      this.#pause = FIRST_PAUSE_MS;
      this.handlers.open();
      this.#send({ watch: this.#symbol });
    };
    socket.onmessage = (event) => this.#receive(event.data);
    socket.onclose = () => {
      this.handlers.closed();
      setTimeout(() => this.#connect(), this.#pause * (0.75 + Math.random() / 2));
      this.#pause = Math.min(LONGEST_PAUSE_MS, this.#pause * 2);
    };
    this.#socket = socket;
  }

  #receive(data) {
    this.#got += 1;
    if (this.#got % ACKNOWLEDGE_EVERY === 0 || performance.now() - this.#acknowledged > ACKNOWLEDGE_MS) {
      this.#acknowledged = performance.now();
      this.#send({ got: this.#got });
    }
    let message;
    try {
      message = JSON.parse(this.#decoder.decode(data));
    } catch {
      return; // cut off in the middle: the next one is complete in itself
    }
    this.handlers.message(message);
  }

  #send(body) {
    if (this.#socket.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify(body));
  }
}
