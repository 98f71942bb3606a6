/* An edit in the fragment of an address: what differs from a known text, packed. Nothing is sent. */

const through = async (bytes, stream) =>
  new Uint8Array(await new Response(new Blob([bytes]).stream().pipeThrough(stream)).arrayBuffer())

/** Anything that is JSON, as letters that an address can carry. */
export async function pack(value) {
  const bytes = new TextEncoder().encode(JSON.stringify(value))
  const packed = await through(bytes, new CompressionStream("deflate-raw"))
  const text = btoa(Array.from(packed, (byte) => String.fromCharCode(byte)).join(""))
  return text.replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "")
}

/** What was packed; throws where the text is none. */
export async function unpack(text) {
  const letters = atob(text.replaceAll("-", "+").replaceAll("_", "/"))
  const bytes = Uint8Array.from(letters, (letter) => letter.charCodeAt(0))
  const plain = await through(bytes, new DecompressionStream("deflate-raw"))
  return JSON.parse(new TextDecoder().decode(plain))
}

/** The lines that differ, as [first, how many, what stands there instead]. */
export function difference(from, to) {
  const [old, now] = [from.split("\n"), to.split("\n")]
  let head = 0
  while (head < old.length && head < now.length && old[head] === now[head]) head++
  let tail = 0
  const most = Math.min(old.length, now.length) - head
  while (tail < most && old.at(-1 - tail) === now.at(-1 - tail)) tail++
  return [head, old.length - head - tail, now.slice(head, now.length - tail)]
}

/** The text that has those lines instead. */
export function patched(text, [first, count, lines]) {
  const all = text.split("\n")
  all.splice(first, count, ...lines)
  return all.join("\n")
}
