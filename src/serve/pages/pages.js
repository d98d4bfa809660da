import { ask, asJson, byId, eventLine, make, moment, note, person } from "./common.js";
import { library } from "./library.js";
import { doubts, threshold } from "./review.js";
import { sources } from "./sources.js";
import { videos } from "./videos.js";

const failed = (error) => note(error.message, true);

const PHASES = {
  connecting: "connecting …",
  waiting: "does not answer",
  ended: "has ended",
  off: "is switched off",
};

/** The live wall: one connection for all sources. */
function wall() {
  const place = byId("wall");
  const tiles = new Map();

  const tile = (name) => {
    if (!tiles.has(name)) {
      const picture = make("img", { alt: `Live picture of ${name}`, hidden: true });
      const word = make("p", {}, "connecting …");
      const dot = make("span", { class: "dot" });
      const [rate, delay, left] = [make("span"), make("span"), make("span")];
      const figure = make("figure", { class: "tile", "data-source": name },
        make("div", { class: "screen" }, picture, word),
        make("figcaption", {}, make("strong", {}, dot, name), rate, delay, left));
      place.append(figure);
      tiles.set(name, { figure, picture, word, dot, rate, delay, left });
    }
    return tiles.get(name);
  };

  const show = (sources) => {
    for (const { name, state } of sources) {
      const one = tile(name);
      const running = state.phase === "running";
      one.dot.className = `dot ${state.phase}`;
      one.picture.hidden = !running || !one.picture.src;
      one.word.hidden = running && !one.picture.hidden;
      const again = state.retry_in_s === null ? "" : `, again in ${Math.ceil(state.retry_in_s)} s`;
      one.word.textContent = running ? "waiting for a picture …" : `${PHASES[state.phase]}${again}${state.error ? `: ${state.error}` : ""}`;
      one.rate.textContent = `${state.rate.toFixed(1)} frames/s`;
      one.delay.textContent = state.delay_ms === null ? "" : `${Math.round(state.delay_ms)} ms`;
      one.left.textContent = state.left_out ? `${state.left_out} left out` : "";
    }
    const names = new Set(sources.map((source) => source.name));
    for (const [name, one] of tiles) {
      if (!names.has(name)) {
        one.figure.remove();
        tiles.delete(name);
      }
    }
    if (sources.length === 0) note("There are no sources yet: set some in the configuration, or with --source.");
  };

  const news = new EventSource("/api/v1/wall");
  news.onmessage = ({ data }) => {
    const { tiles: pictures, sources } = JSON.parse(data);
    note("");
    if (sources) show(sources);
    for (const { source, jpeg } of pictures) {
      const one = tile(source);
      one.picture.src = `data:image/jpeg;base64,${jpeg}`;
      one.picture.hidden = false;
      one.word.hidden = true;
    }
  };
  news.onerror = () => note("The connection is lost; reconnecting.", true);
  window.addEventListener("pagehide", () => news.close());
  timeline(byId("events"), 12);
}

/** The newest events, and later ones as they happen. */
async function timeline(list, most) {
  const { events } = await ask(`/api/v1/events?limit=${most}`);
  list.replaceChildren(...events.map(eventLine));
  const told = new EventSource(`/api/v1/events/stream?after=${events[0]?.id ?? 0}`);
  const add = ({ data }) => {
    list.prepend(eventLine(JSON.parse(data)));
    while (list.children.length > most) list.lastChild.remove();
  };
  for (const kind of ["appeared", "recognised", "corrected", "left"]) told.addEventListener(kind, add);
  window.addEventListener("pagehide", () => told.close());
}

async function people() {
  const place = byId("people");
  const show = async () => {
    const { people } = await ask("/api/v1/people");
    place.replaceChildren(...people.map(card));
    if (people.length === 0) note("Nobody is enrolled yet.");
  };
  const change = (work, done) => async () => {
    try {
      await work();
      note(done);
      await show();
    } catch (error) {
      failed(error);
    }
  };
  const card = ({ name, stills, rejected }) => {
    const rename = () => {
      const to = prompt(`Another name for ${name}`, name);
      if (to && to !== name) change(() => ask(person(name), asJson("PATCH", { name: to })), `${name} is ${to} now.`)();
    };
    const remove = () => {
      if (confirm(`Delete ${name} with all stills, events and pictures?`)) {
        change(() => ask(person(name), { method: "DELETE" }), `${name} is deleted.`)();
      }
    };
    // A picture that is removed by two clicks: on it, and on yes.
    const picture = (still, what, done) => make("button", {
      class: "still", title: [still.file, ...still.problems].join("\n"), "aria-label": `Remove the ${what} ${still.file}`,
      onclick: () => {
        if (confirm(`Remove the ${what} ${still.file} of ${name}?`)) change(() => ask(still.picture, { method: "DELETE" }), done)();
      },
    }, make("img", { src: still.picture, alt: still.file, loading: "lazy" }));
    const pictures = stills.map((still) => picture(still, "still", `A still of ${name} is removed.`));
    const others = rejected.map((still) => picture(still, "counter-example", `A counter-example of ${name} is removed.`));
    const not = make("input", { type: "file", accept: "image/*", multiple: true, hidden: true, onchange: () => {
      const files = new FormData();
      for (const file of not.files) files.append("still", file, file.name);
      note("Processing the pictures …");
      change(() => ask(`${person(name)}/rejected`, { method: "POST", body: files }), `Noted: this is not ${name}.`)();
    } });
    return make("article", { class: "card", "data-person": name },
      make("h3", {}, name),
      make("div", { class: "stills" }, ...pictures),
      make("p", {}, `${stills.length} ${stills.length === 1 ? "still" : "stills"}`),
      ...(others.length ? [make("p", {}, `Not ${name}:`), make("div", { class: "stills rejected" }, ...others)] : []),
      make("div", { class: "buttons" },
        make("a", { href: `/events?person=${encodeURIComponent(name)}` }, "Events"),
        make("button", { class: "quiet", onclick: rename }, "Rename"),
        make("button", { class: "quiet", onclick: () => not.click() }, "Not them …"), not,
        make("button", { class: "danger", onclick: remove }, "Delete")));
  };
  byId("enrol").addEventListener("submit", async (event) => {
    event.preventDefault();
    const form = event.target;
    const stills = new FormData();
    for (const file of form.stills.files) stills.append("still", file, file.name);
    note("Processing the stills …");
    await change(() => ask(`${person(form.name.value)}/stills`, { method: "POST", body: stills }), `${form.name.value} is enrolled.`)();
    form.reset();
  });
  await show();
}

/** Names to choose from. */
async function names() {
  const { people } = await ask("/api/v1/people");
  byId("names").replaceChildren(...people.map(({ name }) => make("option", { value: name })));
}

async function strangers() {
  const place = byId("strangers");
  const show = async () => {
    const { strangers } = await ask("/api/v1/strangers");
    place.replaceChildren(...strangers.map((stranger) => card(stranger, strangers)));
    // Not as a note, which shows the last action.
    if (strangers.length === 0) place.append(make("p", {}, "There is nobody to name."));
    await names();
  };
  const card = (stranger, all) => {
    const path = `/api/v1/strangers/${stranger.id}`;
    const change = async (work, done) => {
      try {
        await work();
        note(done);
        await show();
      } catch (error) {
        failed(error);
      }
    };
    const name = make("input", { "aria-label": `Name of Unknown ${stranger.id}`, list: "names", maxlength: 200, required: true, placeholder: "Name", autocomplete: "off" });
    const form = make("form", {
      onsubmit: (event) => {
        event.preventDefault();
        change(() => ask(`${path}/name`, asJson("POST", { name: name.value })), `Unknown ${stranger.id} is ${name.value} now.`);
      },
    }, name, make("button", {}, "Name"));
    const forget = () => change(() => ask(path, { method: "DELETE" }), `Unknown ${stranger.id} is forgotten.`);
    const ignore = () => change(() => ask(`${path}/ignore`, { method: "POST" }), `Whatever looks like Unknown ${stranger.id} is ignored.`);
    const others = all.filter((other) => other.id !== stranger.id);
    const into = make("select", { "aria-label": `Who Unknown ${stranger.id} is as well`, onchange: () => {
      change(() => ask(`${path}/merge`, asJson("POST", { into: Number(into.value) })), `Unknown ${stranger.id} and Unknown ${into.value} are one.`);
    } }, make("option", { value: "" }, "Same as …"), ...others.map(({ id }) => make("option", { value: id }, `Unknown ${id}`)));
    return make("article", { class: "card", "data-stranger": stranger.id },
      make("img", { src: stranger.picture, alt: `Unknown ${stranger.id}`, loading: "lazy" }),
      make("h3", {}, `Unknown ${stranger.id}`),
      make("p", {}, `${stranger.visits} ${stranger.visits === 1 ? "visit" : "visits"}, last at `, moment(stranger.last), ` (${stranger.last_source})`),
      form,
      make("div", { class: "buttons" },
        make("a", { href: `/events?stranger=${stranger.id}` }, "Events"),
        ...(others.length ? [into] : []),
        make("button", { class: "quiet ignore", type: "button", onclick: ignore }, "Not a person"),
        make("button", { class: "danger", type: "button", onclick: forget }, "Forget")));
  };
  await show();
}

async function events() {
  const [list, older, form] = [byId("events"), byId("older"), byId("filter")];
  const asked = new URLSearchParams(location.search);
  const query = () => {
    const wanted = new URLSearchParams();
    if (asked.has("stranger")) wanted.set("stranger", asked.get("stranger"));
    for (const [name, value] of new FormData(form)) {
      if (value) wanted.set(name, name === "since" || name === "until" ? new Date(value).getTime() : value);
    }
    return wanted;
  };
  const show = async (before) => {
    const wanted = query();
    if (before) wanted.set("before", before);
    try {
      const { events } = await ask(`/api/v1/events?${wanted}`);
      const lines = events.map(eventLine);
      if (before) list.append(...lines);
      else list.replaceChildren(...lines);
      older.hidden = events.length < 100;
      note(list.children.length ? "" : "Nothing has happened.");
    } catch (error) {
      failed(error);
    }
  };
  older.addEventListener("click", () => show(list.lastChild.dataset.id));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    asked.delete("stranger");
    show();
  });
  const { sources } = await ask("/api/v1/sources");
  form.source.append(...sources.map(({ name }) => make("option", {}, name)));
  for (const name of ["person", "source", "kind"]) if (asked.has(name)) form[name].value = asked.get(name);
  await names();
  await show();
}

function login() {
  const form = byId("login");
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    try {
      await ask("/api/v1/session", asJson("POST", { token: event.target.token.value }));
      location.href = "/";
    } catch (error) {
      failed(error);
    }
  });
  // Before this, the browser would send the token by itself.
  form.querySelector("button").disabled = false;
}

const pages = { wall, people, strangers, doubts, events, videos, library, sources, threshold, login };

async function start() {
  const page = document.body.dataset.page;
  if (page !== "login") {
    const { role, token_needed } = await ask("/api/v1/session");
    if (token_needed && !role) {
      location.href = "/login";
      return;
    }
    const leave = byId("leave");
    leave.hidden = !token_needed;
    leave.addEventListener("click", async () => {
      await ask("/api/v1/session", { method: "DELETE" });
      location.href = "/login";
    });
  }
  await pages[page]();
}

start().catch(failed);
