// Requests to the server with the key, and errors as sentences.

const KEY = "protoseg-key";
let key = remembered();

function remembered() {
  try {
    return sessionStorage.getItem(KEY);
  } catch {
    // Where storage is forbidden, the key lasts until the page is left.
    return null;
  }
}

/** Sets the key of all further requests. */
export function setKey(word) {
  key = word;
  try {
    sessionStorage.setItem(KEY, word);
  } catch {
    // As above.
  }
}

/** A failed request. */
export class Problem extends Error {
  /** `again`: a retry may help; `seconds`: after how long. */
  constructor(message, { status = 0, again = false, seconds = 0 } = {}) {
    super(message);
    Object.assign(this, { status, again, seconds });
  }
}

/** Sends a request to a path of the server; throws a Problem where it fails. */
export async function ask(address, options = {}) {
  // Headers are ASCII; fetch would fail as if the server were gone.
  if (/[^\x20-\x7e]/.test(key ?? "")) throw new Problem("The key has characters other than ASCII.", { status: 401 });
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
  if (status === 401) throw new Problem(key ? "The server rejects this key." : "", { status });
  if (status === 429) {
    throw new Problem(`The server is overloaded; try again in ${seconds || 1} s.`, { status, again, seconds });
  }
  throw new Problem(sentence(answer.error ?? `the server answered with status ${status}`), { status, again, seconds });
}

function sentence(text) {
  return text.charAt(0).toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? "" : ".");
}

/** The path where a model answers with a view of its labels. */
export function segmentAddress(model, view) {
  return `v1/models/${encodeURIComponent(model)}/segment?as=${view}`;
}
