/* Python in a worker, which can be asked one thing at a time, and ended at any moment. */

const PATIENCE = 10

export class Python {
  #worker
  #answer // the promise's functions, while something is asked
  #silent = 0
  #clock
  #patience
  version

  /** `patience`: how many seconds without a word are an endless loop. */
  constructor(patience = PATIENCE) {
    this.#patience = patience
  }

  /** Fetch and start it, if it is not running. */
  start() {
    if (this.#worker) return
    this.#worker = new Worker(new URL("worker.mjs", import.meta.url), { type: "module" })
    this.#worker.onmessage = ({ data }) => this.#hear(data)
    this.#worker.onerror = (event) => this.end(`Python has ended: ${event.message ?? "no reason given"}`)
    this.#worker.postMessage({ call: "start" })
  }

  /** Ask for `search` or `run_block`; `tell` hears of each message in between. */
  ask(call, request, tell = () => {}) {
    this.start()
    return new Promise((resolve, reject) => {
      this.#answer = { resolve, reject, tell }
      this.#worker.postMessage({ call, request })
    })
  }

  /** End it, with the reason for whoever waits. */
  end(reason) {
    this.#worker?.terminate()
    this.#worker = undefined
    this.#settle("reject", new Error(reason))
  }

  #settle(how, value) {
    clearInterval(this.#clock)
    const answer = this.#answer
    this.#answer = undefined
    answer?.[how](value)
  }

  #hear(data) {
    this.#silent = 0
    if (data.kind === "ready") this.version = data
    if (data.kind === "begun") this.#watch()
    if (data.kind === "recording") clearInterval(this.#clock) // a schedule that has ended before
    if (data.kind === "died") return this.end(`Python has ended: ${data.text}`)
    if (data.kind === "result") {
      this.#settle("resolve", data.result)
      // A thread that would not end: what it left behind must not disturb the next search.
      if (data.result.suspended) this.end("")
      return
    }
    this.#answer?.tell(data)
  }

  /* Seconds are counted, not measured: a machine that was asleep did not run, either. */
  #watch() {
    this.#silent = 0
    this.#clock = setInterval(() => {
      if (++this.#silent >= this.#patience)
        this.end(`Nothing was heard for ${this.#patience} seconds, so it was ended: is there an endless loop?`)
    }, 1000)
  }
}
