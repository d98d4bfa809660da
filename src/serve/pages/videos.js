// Videos to label, and their progress.
import { ask, byId, make, moment, note } from "./common.js";

const failed = (error) => note(error.message, true);

const STATES = {
  waiting: "waits for its turn",
  running: "is being labelled …",
  done: "done",
  failed: "failed",
  cancelled: "cancelled",
};

/** Sends a file and reports the progress. */
function send(file, told) {
  return new Promise((done, refused) => {
    const request = new XMLHttpRequest();
    request.open("POST", `/api/v1/jobs?name=${encodeURIComponent(file.name)}`);
    request.setRequestHeader("Content-Type", "video/mp4");
    request.responseType = "json";
    request.upload.addEventListener("progress", ({ loaded, total }) => told(loaded / total));
    request.addEventListener("load", () => {
      if (request.status === 200) done(request.response);
      else refused(new Error(request.response?.detail ?? `status ${request.status}`));
    });
    request.addEventListener("error", () => refused(new Error("the connection was lost")));
    request.send(file);
  });
}

export async function videos() {
  const [place, form, sent] = [byId("jobs"), byId("upload"), byId("sent")];
  const cards = new Map();
  const change = (path, options, done) => async () => {
    try {
      await ask(path, options);
      note(done);
      await show();
    } catch (error) {
      failed(error);
    }
  };
  const card = (job) => {
    const path = `/api/v1/jobs/${job.id}`;
    const over = !["waiting", "running"].includes(job.state);
    const results = job.results && [
      make("a", { href: job.results.page }, "Page"),
      make("a", { href: job.results.video }, "Video"),
      make("a", { href: job.results.faces, download: `${job.name}.jsonl` }, "Faces"),
    ];
    const buttons = over
      ? make("button", { class: "danger", onclick: change(path, { method: "DELETE" }, `${job.name} is deleted.`) }, "Delete")
      : make("button", { class: "quiet", onclick: change(`${path}/cancel`, { method: "POST" }, `${job.name} is cancelled.`) }, "Cancel");
    const progress = job.state === "running"
      ? [make("progress", { max: 1, value: job.progress, "aria-label": `Progress of ${job.name}` })]
      : [];
    return make("article", { class: "card", "data-job": job.id, "data-state": job.state },
      make("h3", {}, job.name),
      make("p", {}, moment(job.made), ` · ${STATES[job.state]}`),
      ...progress,
      ...(job.reason ? [make("p", { class: "why" }, job.reason)] : []),
      ...(job.people.length ? [make("p", {}, `Seen: ${job.people.join(", ")}`)] : []),
      make("div", { class: "buttons" }, ...(results ?? []), buttons));
  };
  const show = async () => {
    const { jobs } = await ask("/api/v1/jobs");
    const known = new Set(jobs.map((job) => job.id));
    for (const [id, { element }] of cards) {
      if (!known.has(id)) {
        element.remove();
        cards.delete(id);
      }
    }
    // Only changed elements are replaced, so that a button does not move away while it is pressed.
    for (const [at, job] of jobs.entries()) {
      const text = JSON.stringify(job);
      const held = cards.get(job.id);
      if (held?.text === text) continue;
      const bar = held?.element.querySelector("progress");
      if (bar && held.state === job.state) {
        bar.value = job.progress ?? 0;
        held.text = text;
        continue;
      }
      const element = card(job);
      if (held) held.element.replaceWith(element);
      else place.insertBefore(element, place.children[at] ?? null);
      cards.set(job.id, { element, text, state: job.state });
    }
    byId("none")?.remove();
    if (jobs.length === 0) place.append(make("p", { id: "none" }, "No video has been labelled yet."));
  };
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const file = form.video.files[0];
    sent.hidden = false;
    form.querySelector("button").disabled = true;
    try {
      await send(file, (share) => { sent.value = share; });
      note(`${file.name} is uploaded.`);
      form.reset();
      await show();
    } catch (error) {
      failed(error);
    } finally {
      sent.hidden = true;
      form.querySelector("button").disabled = false;
    }
  });
  await show();
  setInterval(() => show().catch(failed), 1000);
}
