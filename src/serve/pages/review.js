// Doubtful names, and the effect of the threshold.
import { ask, asJson, byId, make, moment, note, person } from "./common.js";

const failed = (error) => note(error.message, true);

export async function doubts() {
  const place = byId("doubts");
  const show = async () => {
    // The margin of doubtful names can be set in the address: /doubts?margin_deg=10
    const { events } = await ask(`/api/v1/doubts${location.search}`);
    place.replaceChildren(...events.map(card));
    if (events.length === 0) place.append(make("p", {}, "There is no doubtful name."));
  };
  const card = (event) => {
    const name = event.person;
    const change = (path, options, done) => async () => {
      try {
        await ask(`/api/v1/events/${event.id}/${path}`, options);
        note(done);
        await show();
      } catch (error) {
        failed(error);
      }
    };
    const still = make("img", { alt: `A still of ${name}`, hidden: true });
    // A still to compare with; a person who was removed has none.
    ask(person(name)).then(({ stills }) => {
      if (stills.length) {
        still.src = stills[0].picture;
        still.hidden = false;
      }
    }).catch(() => {});
    return make("article", { class: "card", "data-event": event.id },
      make("div", { class: "pair" }, make("img", { src: event.picture, alt: `Taken for ${name}` }), still),
      make("h3", {}, `Is this ${name}?`),
      make("p", {}, moment(event.time), ` · ${event.source}`),
      make("p", { class: "why" }, event.why),
      make("div", { class: "buttons" },
        make("button", { class: "yes", onclick: change("confirm", asJson("POST", {}), `Confirmed: ${name}.`) }, "Yes"),
        make("button", { class: "quiet learn", onclick: change("confirm", asJson("POST", { enroll: true }), `Confirmed, and added to the stills of ${name}.`) }, "Yes, and learn it"),
        make("button", { class: "danger no", onclick: change("reject", { method: "POST" }, `Noted: this is not ${name}.`) }, "No")));
  };
  await show();
}

export async function threshold() {
  const [form, set, unset] = [byId("look"), byId("set"), byId("unset")];
  const { role } = await ask("/api/v1/session");
  const degrees = (value) => `${value.toFixed(1)} degrees`;
  const show = async (wanted) => {
    const query = wanted ? `?threshold_deg=${encodeURIComponent(wanted)}` : "";
    const told = await ask(`/api/v1/threshold${query}`);
    const rate = told.false_match_rate;
    const facts = [
      ["In force", `${degrees(told.in_force_deg)}${told.set_here ? ", set here" : ""}`],
      ["Looked at", degrees(told.threshold_deg)],
      ["Pairs of different people who are nearer, by the calibration", rate === null ? "not known" : `1 in ${Math.round(1 / rate)}`],
      ["Strangers here who would be given a name", `${told.strangers_named} of ${told.strangers}`],
      ["Names given here that would be lost", `${told.names_lost} of ${told.names}`],
    ];
    byId("figures").replaceChildren(...facts.map(([what, value]) => make("div", {}, make("dt", {}, what), make("dd", {}, value))));
    byId("plot").src = `/api/v1/threshold/plot.svg${query}`;
    form.threshold_deg.value = told.threshold_deg.toFixed(1);
    set.hidden = role !== "administrator" || Math.abs(told.threshold_deg - told.in_force_deg) < 0.05;
    unset.hidden = role !== "administrator" || !told.set_here;
  };
  const change = (options, done) => async () => {
    try {
      const { in_force_deg } = await ask("/api/v1/threshold", options());
      await show();
      note(`${done} ${degrees(in_force_deg)}.`);
    } catch (error) {
      failed(error);
    }
  };
  set.addEventListener("click", change(() => asJson("PUT", { threshold_deg: Number(form.threshold_deg.value) }), "Faces are named below"));
  unset.addEventListener("click", change(() => ({ method: "DELETE" }), "The threshold of the configuration is in force again:"));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    note("");
    show(form.threshold_deg.value).catch(failed);
  });
  await show();
}
