// Requests to `ganrun paint`. The token, if there is one, stands behind the # of the address.

export class Server {
  #token = location.hash.slice(1);

  async about() {
    return (await this.#fetch("about", {})).json();
  }

  async post(path, value) {
    return (await this.#fetch(path, this.#json(value))).json();
  }

  async picture(file) {
    const headers = { "Content-Type": "application/octet-stream" };
    return (await this.#fetch("picture", { method: "POST", headers, body: file })).json();
  }

  // Calls `follow` with each line of progress, and returns the last line.
  async edit(edit, signal, follow) {
    const reader = (await this.#fetch("edit", { ...this.#json(edit), signal })).body.getReader();
    const decoder = new TextDecoder();
    let rest = "";
    let last = null;
    for (;;) {
      const { done, value } = await reader.read();
      rest += decoder.decode(value, { stream: !done });
      const lines = rest.split("\n");
      rest = lines.pop();
      for (const line of lines) follow((last = JSON.parse(line)));
      if (done) break;
    }
    if (!last?.candidates) throw new Error(last?.error ?? "the connection was lost: is ganrun paint still running?");
    return last;
  }

  #json(value) {
    return { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(value) };
  }

  async #fetch(path, options) {
    const headers = { ...options.headers, ...(this.#token ? { Authorization: `Bearer ${this.#token}` } : {}) };
    const answer = await fetch(path, { ...options, headers }).catch((error) => {
      throw options.signal?.aborted ? error : new Error("ganrun paint does not answer: is it still running?");
    });
    if (answer.ok) return answer;
    const { error } = await answer.json().catch(() => ({}));
    throw new Error(error ?? `refused: ${answer.status}`);
  }
}
