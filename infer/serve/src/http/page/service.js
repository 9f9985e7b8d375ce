// The server as the page knows it: requests with the key, and what went wrong in sentences.

const KEY = "protoseg-key";
let key = remembered();

function remembered() {
  try {
    return sessionStorage.getItem(KEY);
  } catch {
    // A browser may forbid storage; the key then lasts until the page is left.
    return null;
  }
}

/** Takes a key for what is asked from now on. */
export function setKey(word) {
  key = word;
  try {
    sessionStorage.setItem(KEY, word);
  } catch {
    // As above.
  }
}

/** Why there is no answer. */
export class Problem extends Error {
  /** `seconds`: after how long to try again; `again`: whether that may help. */
  constructor(message, { status = 0, again = false, seconds = 0 } = {}) {
    super(message);
    Object.assign(this, { status, again, seconds });
  }
}

/** The answer to a request for an address of the server, or a Problem. */
export async function ask(address, options = {}) {
  // What no header can hold would fail as if there were no server.
  if (/[^\x20-\x7e]/.test(key ?? "")) throw new Problem("The key has letters that no key can have.", { status: 401 });
  const headers = key ? { authorization: `Bearer ${key}` } : {};
  let response;
  try {
    response = await fetch(new URL(address, document.baseURI), { ...options, headers, cache: "no-store" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem("The server cannot be reached.", { again: true });
  }
  if (response.ok) return response;
  const { status } = response;
  const answer = await response.json().catch(() => ({}));
  const seconds = Number(response.headers.get("retry-after")) || 0;
  const again = status === 408 || status === 429 || status >= 500;
  if (status === 401) throw new Problem(key ? "The server does not take this key." : "", { status });
  if (status === 429) {
    throw new Problem(`The server has too much to do; try again in ${seconds || 1} s.`, { status, again, seconds });
  }
  throw new Problem(sentence(answer.error ?? `The server answers with status ${status}`), { status, again, seconds });
}

function sentence(text) {
  return text.charAt(0).toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? "" : ".");
}

/** The address under which a model answers with a view of what it found. */
export function segmentAddress(model, view) {
  return `v1/models/${encodeURIComponent(model)}/segment?as=${view}`;
}
