// Dead letters: listed, filtered, shown whole, replayed.

import { call } from "./api.js";
import { byId, clock, make, number, setText, table } from "./page.js";

const STEP = 50;

export class Letters {
  constructor(name, say, confirmed) {
    this.name = name;
    this.say = say;
    this.confirmed = confirmed;
    this.limit = STEP;
    this.old = true;
    this.known = -1;
    this.shown = null;
    byId("letters-stage").addEventListener("change", () => this.fresh());
    byId("letters-error").addEventListener("input", () => this.fresh());
    byId("letters-more").addEventListener("click", () => { this.limit += STEP; this.fresh(false); });
    byId("letters-replay").addEventListener("click", () => this.replayAll());
    byId("letter-replay").addEventListener("click", () => this.replay({ ids: [this.shown] }));
  }

  fresh(anew = true) {
    if (anew) this.limit = STEP;
    this.old = true;
    this.refresh().catch((error) => this.say(error.message, true));
  }

  stale() {
    this.old = true;
  }

  count(total, stages) {
    if (total !== this.known) this.old = true;
    this.known = total;
    const select = byId("letters-stage");
    const names = stages.map((stage) => stage.name);
    if (select.dataset.key === JSON.stringify(names)) return;
    select.dataset.key = JSON.stringify(names);
    select.replaceChildren(make("option", { value: "" }, "all"), ...names.map((name) => make("option", { value: name }, name)));
  }

  wanted() {
    const found = {};
    if (byId("letters-stage").value) found.stage = byId("letters-stage").value;
    if (byId("letters-error").value) found.error = byId("letters-error").value;
    return found;
  }

  path(more = "") {
    return `/api/pipelines/${encodeURIComponent(this.name())}/letters${more}`;
  }

  async refresh() {
    if (!this.old || document.hidden) return;
    this.old = false;
    const query = new URLSearchParams({ ...this.wanted(), limit: this.limit });
    this.show(await call(this.path(`?${query}`)));
  }

  show({ total, letters }) {
    const filtered = Object.keys(this.wanted()).length > 0;
    setText(byId("letters-none"), total ? "" : filtered ? "None like that." : "None: every record found its way.");
    byId("letters-bar").hidden = !total && !filtered;
    byId("letters-replay").disabled = !total;
    setText(byId("letters-count"), total ? `${number(letters.length)} of ${number(total)}` : "");
    byId("letters-more").hidden = letters.length >= total;
    byId("letters").hidden = !total;
    const focused = document.activeElement?.dataset?.letter;
    table(byId("letters"), "", [["id", "number"], ["at"], ["stage"], ["error", "wrap"], ["position"], ["attempts", "number"], [""]],
      letters.map((letter) => ({ cells: [letter.id, clock(letter.at), letter.stage, `${letter.error_type}: ${letter.error}`, letter.position, letter.attempts,
        make("button", { type: "button", "data-letter": letter.id, "aria-label": `Show dead letter ${letter.id}`, onclick: () => this.open(letter.id) }, "Show")] })));
    if (focused) byId("letters").querySelector(`[data-letter="${focused}"]`)?.focus();
  }

  async open(id) {
    try {
      const letter = await call(this.path(`/${id}`));
      this.shown = id;
      setText(byId("letter-title"), `Dead letter ${id}`);
      const facts = { stage: letter.stage, error: `${letter.error_type}: ${letter.error}`, position: letter.position, attempts: letter.attempts,
        at: new Date(letter.at * 1000).toLocaleString(), key: letter.key, run: letter.run, replays: letter.replays };
      byId("letter-facts").replaceChildren(...Object.entries(facts).flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]));
      setText(byId("letter-record"), JSON.stringify(letter.record, null, 2));
      byId("letter").showModal();
    } catch (error) {
      this.say(error.message, true);
    }
  }

  async replayAll() {
    const wanted = this.wanted();
    const what = byId("letters-count").textContent.split(" of ").at(-1);
    if (await this.confirmed(`Replay ${what} dead letters? Each enters again at the stage that it failed in.`, "Replay")) await this.replay(wanted);
  }

  async replay(wanted) {
    byId("letter").close();
    try {
      const said = await call(this.path("/replay"), wanted);
      this.say(said.text);
    } catch (error) {
      this.say(error.message, true);
    }
    this.fresh();
  }
}
