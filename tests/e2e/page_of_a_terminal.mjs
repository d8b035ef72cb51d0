// A page with a terminal, without a browser: what xterm.js and its attach addon do with a web socket, as far as that
// matters to the server, and somebody who types. Runs the lines that docs/processes.md tells pages to have.
//
//   node page_of_a_terminal.mjs '{"page": "…", "url": "…", "origin": "…"}'
//
// Says, in a line of JSON, which subprotocol there was, what was shown, and how the socket was closed.

import { randomBytes } from "node:crypto";
import { request } from "node:http";

const TEXT = 1, BINARY = 2, CLOSE = 8, PING = 9, PONG = 10;
const asked = JSON.parse(process.argv[2]);

/** The part of a browser's WebSocket that the addon uses. Source: RFC 6455. */
class BrowserSocket extends EventTarget {
  binaryType = "blob";
  protocol = "";

  constructor(url, protocol) {
    super();
    const headers = {
      Connection: "Upgrade", Upgrade: "websocket", Origin: asked.origin, "Sec-WebSocket-Version": "13",
      "Sec-WebSocket-Key": randomBytes(16).toString("base64"), "Sec-WebSocket-Protocol": protocol,
    };
    const opening = request(url.replace(/^ws:/, "http:"), { headers });
    opening.on("response", (answer) => fail(`the server answers ${answer.statusCode}`));
    opening.on("upgrade", (answer, stream, head) => this.#begin(answer, stream, head));
    opening.on("error", (error) => fail(error.message));
    opening.end();
  }

  send(data) {
    if (typeof data === "string") this.#write(TEXT, Buffer.from(data, "utf8"));
    else this.#write(BINARY, Buffer.from(data));
  }

  #begin(answer, stream, head) {
    this.protocol = answer.headers["sec-websocket-protocol"];
    this.stream = stream;
    this.waiting = head;
    stream.setNoDelay(true);
    stream.on("data", (data) => this.#take(Buffer.concat([this.waiting, data])));
    stream.on("end", () => stream.end());
    this.dispatchEvent(new Event("open"));
    this.#take(this.waiting);
  }

  #write(kind, content) {
    const mask = randomBytes(4);
    const size = Buffer.from(content.length < 126 ? [content.length | 128] : [126 | 128, content.length >> 8, content.length & 255]);
    const masked = Buffer.from(content.map((byte, place) => byte ^ mask[place % 4]));
    this.stream.write(Buffer.concat([Buffer.from([kind | 128]), size, mask, masked]));
  }

  #take(data) {
    this.waiting = data;
    while (this.waiting.length >= 2) {
      let size = this.waiting[1], start = 2;
      if (size === 126) [size, start] = [this.waiting.length < 4 ? Infinity : this.waiting.readUInt16BE(2), 4];
      else if (size === 127) [size, start] = [this.waiting.length < 10 ? Infinity : Number(this.waiting.readBigUInt64BE(2)), 10];
      if (this.waiting.length < start + size) return;
      const [kind, content] = [this.waiting[0], this.waiting.subarray(start, start + size)];
      this.waiting = this.waiting.subarray(start + size);
      this.#hear(kind & 15, content, kind & 128);
    }
  }

  #hear(kind, content, isWhole) {
    if (!isWhole) fail("a message comes in parts");
    if (kind === PING) this.#write(PONG, content);
    else if (kind === CLOSE) {
      this.#write(CLOSE, content);
      this.dispatchEvent(Object.assign(new Event("close"), { code: content.readUInt16BE(0), reason: content.toString("utf8", 2) }));
    } else {
      if (this.binaryType !== "arraybuffer") fail("the addon has not said what it takes");
      const data = kind === TEXT ? content.toString("utf8") : Uint8Array.from(content).buffer;
      this.dispatchEvent(Object.assign(new Event("message"), { data }));
    }
  }
}

/** What xterm.js gives addons and pages: keys that were typed as text, reports of the mouse as bytes, its size. */
class Terminal {
  shown = "";
  #decoder = new TextDecoder();
  #listeners = { data: [], binary: [], resize: [], write: [] };

  loadAddon(addon) { addon.activate(this); }
  onData(listener) { this.#listeners.data.push(listener); }
  onBinary(listener) { this.#listeners.binary.push(listener); }
  onResize(listener) { this.#listeners.resize.push(listener); }

  type(keys) { this.#tell("data", keys); }
  report(bytes) { this.#tell("binary", bytes); }
  resize(cols, rows) { this.#tell("resize", { cols, rows }); }

  write(data) {
    this.shown += typeof data === "string" ? data : this.#decoder.decode(data, { stream: true });
    this.#tell("write");
  }

  /** Until something is shown that was not before. */
  async sees(text) {
    while (!this.shown.includes(text)) await new Promise((resolve) => this.#listeners.write.push(resolve));
  }

  #tell(what, value) { for (const listener of [...this.#listeners[what]]) listener(value); }
}

/** As the addon of xterm.js connects the two: text is sent as text, bytes as bytes, and what comes is written. */
class AttachAddon {
  constructor(socket) {
    this.socket = socket;
    socket.binaryType = "arraybuffer";
  }

  activate(terminal) {
    this.socket.addEventListener("message", ({ data }) => terminal.write(typeof data === "string" ? data : new Uint8Array(data)));
    terminal.onData((text) => this.socket.send(text));
    terminal.onBinary((text) => this.socket.send(Uint8Array.from(text, (character) => character.charCodeAt(0) & 255)));
  }
}

function fail(why) {
  console.error(why);
  process.exit(1);
}

const terminal = new Terminal();
const open = new Function("WebSocket", "AttachAddon", "terminal", "url", `${asked.page}\nreturn socket;`);
const socket = open(BrowserSocket, AttachAddon, terminal, asked.url);
await new Promise((resolve) => socket.addEventListener("open", resolve));
const closed = new Promise((resolve) => socket.addEventListener("close", resolve));

terminal.type("stty size; echo caf\u00e9-\u{1f600}-$((1+1))\r");
await terminal.sees("caf\u00e9-\u{1f600}-2\r\n");
terminal.resize(100, 40);
terminal.type("stty size; echo resized-$((1+1))\r");
await terminal.sees("resized-2\r\n");
// Control and space are NUL, and whoever holds them down sends several.
terminal.type("echo keys-$((1+1)); head -c 4 | od -An -tx1\r");
await terminal.sees("keys-2\r\n");
for (const keys of ["\0", "\0\0", "\r"]) terminal.type(keys);
await terminal.sees(" 00 00 00 0a\r\n");
terminal.type("echo mouse-$((1+1)); head -c 3 | od -An -tx1\r");
await terminal.sees("mouse-2\r\n");
terminal.report("A\xff\r");
await terminal.sees(" 41 ff 0a\r\n");
terminal.type(`sh -c 'trap "echo caught-\\$((1+1)); exit" INT; echo waits-$((1+1)); while :; do sleep 0.1; done'\r`);
await terminal.sees("waits-2\r\n");
terminal.type("\x03");
await terminal.sees("caught-2\r\n");
terminal.type("exit 3\r");
const { code, reason } = await closed;
console.log(JSON.stringify({ protocol: socket.protocol, shown: terminal.shown, code, reason }));
