// Code shared by all pages. External texts become text nodes and never markup.

/** An element with attributes and children; texts are text. */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (typeof value === "boolean") element.toggleAttribute(name, value);
    else if (value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

export const byId = (id) => document.getElementById(id);

/** Shows a message or an error; nothing hides the note. */
export function note(text, bad = false) {
  const place = byId("note");
  place.textContent = text;
  place.hidden = !text;
  place.classList.toggle("bad", bad);
}

/** Calls the API; without a valid token, goes to the login page. */
export async function ask(path, options = {}) {
  const answer = await fetch(path, options);
  if (answer.status === 401 && document.body.dataset.page !== "login") {
    location.href = "/login";
    return new Promise(() => {});
  }
  const body = await answer.json();
  if (!answer.ok) throw new Error(body.detail ?? answer.statusText);
  return body;
}

export const asJson = (method, value) => ({
  method,
  headers: { "Content-Type": "application/json" },
  body: JSON.stringify(value),
});

export const person = (name) => `/api/v1/people/${encodeURIComponent(name)}`;

/** A time for people. */
export function moment(time) {
  return make("time", { datetime: time }, new Date(time).toLocaleString([], { dateStyle: "short", timeStyle: "medium" }));
}

const DID = {
  appeared: "appeared",
  recognised: "was recognised",
  corrected: "is someone else than assumed",
  left: "left",
};

/** A line of the timeline. */
export function eventLine(event) {
  const picture = event.picture
    ? make("img", { src: event.picture, alt: event.who, loading: "lazy" })
    : make("img", { src: "/icon.svg", alt: "" });
  const was = event.was ? ` (before: ${event.was})` : "";
  const line = make("li", { "data-id": event.id, "data-kind": event.kind },
    picture,
    make("div", {},
      make("strong", {}, event.who), ` ${DID[event.kind] ?? event.kind}${was} · `,
      make("span", { class: "soft" }, event.source),
      make("div", { class: "why" }, event.why)),
    moment(event.time));
  return line;
}
