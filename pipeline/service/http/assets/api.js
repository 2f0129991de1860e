// The API of the server, with the token if it needs one; and its stream of events, which is opened again when it ends.

const TOKEN = "pipeline-token";

export class RequestRefused extends Error {
  constructor(status, code, reason) {
    super(reason);
    this.status = status;
    this.code = code;
  }
}

export function remember(token) {
  sessionStorage.setItem(TOKEN, token);
}

function headers(more = {}) {
  const token = sessionStorage.getItem(TOKEN);
  return token ? { authorization: `Bearer ${token}`, ...more } : more;
}

export async function call(path, body) {
  const options = body === undefined
    ? { headers: headers() }
    : { method: "POST", headers: headers({ "content-type": "application/json" }), body: JSON.stringify(body) };
  const answer = await fetch(path, options);
  if (!answer.ok) throw await refusal(answer);
  return answer.json();
}

async function refusal(answer) {
  try {
    const { code, reason } = await answer.json();
    return new RequestRefused(answer.status, code, reason);
  } catch {
    return new RequestRefused(answer.status, "unknown", `the server answered ${answer.status}`);
  }
}

// `on` has status(overview), log(entry), lost(count), state("open" | "lost" | "token", reason).
export async function follow(on) {
  let wait = 500;
  for (;;) {
    let reason = "the connection is gone";
    try {
      const answer = await fetch("/api/events", { headers: headers() });
      if (!answer.ok) throw await refusal(answer);
      on.state("open", "");
      wait = 500;
      reason = (await read(answer.body.getReader(), on)) || reason;
    } catch (error) {
      if (error.status === 401) return on.state("token", error.message);
      reason = error instanceof RequestRefused ? error.message : "the server can't be reached";
    }
    on.state("lost", reason);
    await new Promise((go) => setTimeout(go, wait));
    wait = Math.min(wait * 2, 10000);
  }
}

async function read(reader, on) {
  const decoder = new TextDecoder();
  let held = "";
  let reason = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return reason;
    held += decoder.decode(value, { stream: true });
    const parts = held.split("\n\n");
    held = parts.pop();
    for (const part of parts) {
      const lines = part.split("\n");
      const name = lines.find((line) => line.startsWith("event: "))?.slice(7);
      const data = lines.filter((line) => line.startsWith("data: ")).map((line) => line.slice(6)).join("\n");
      if (name === "status") on.status(JSON.parse(data));
      else if (name === "log") on.log(JSON.parse(data));
      else if (name === "lost") on.lost(JSON.parse(data).count);
      else if (name === "end") reason = JSON.parse(data).reason;
    }
  }
}
