// The jobs of this key, as the server has them, and what is told of those under way.

import { Problem, ask, json, order, sentEvents } from "./api.js";

/** Streams that are read at a time: browsers have six connections to a server, and pictures need some. */
const STREAMS = 2;
/** Time between two looks at jobs that no stream tells of, in ms. */
const LOOK = 2000;
/** Time in which steps that follow each other are told as one, in ms. */
const STEPS = 150;
/** Jobs that are asked for at a time. */
const PAGE = 50;

/** Whether a job has not ended. */
export const isLive = (job) => job.status === "queued" || job.status === "running";

/**
 * All jobs that are known. Sends `job` when one came or changed, `step` and `preview` while it is drawn, `gone` when it
 * is no longer there; each with the id.
 */
class Jobs extends EventTarget {
  #all = new Map();
  #sorted = null;
  #streams = new Map();
  #more = true;
  #timer = null;
  #stepped = new Set();

  /** The jobs, the newest first, as `{ job, plan, seconds, previews }`. */
  list() {
    this.#sorted ??= [...this.#all.values()].sort((a, b) => b.job.created_at - a.job.created_at);
    return this.#sorted;
  }

  /** Calls `show` when jobs came, changed or went: once, however many at a time. */
  changed(show) {
    let waits = false;
    const soon = () => {
      if (waits) return;
      waits = true;
      queueMicrotask(() => {
        waits = false;
        show();
      });
    };
    for (const name of ["job", "gone"]) this.addEventListener(name, soon);
  }

  /** What is known of a job. */
  get(id) {
    return this.#all.get(id);
  }

  /** Whether the server has older ones. */
  get hasMore() {
    return this.#more;
  }

  /** Reads the newest jobs, and follows those that have not ended. */
  async start() {
    const { data, has_more } = await json(`/v1/jobs?limit=${PAGE}`);
    this.#more = has_more;
    data.forEach((job) => this.#put(job));
    document.addEventListener("visibilitychange", () => this.#follow());
    this.#follow();
  }

  /** Reads older jobs. */
  async more() {
    const last = this.list().at(-1);
    const after = last ? `&after=${last.job.id}` : "";
    const { data, has_more } = await json(`/v1/jobs?limit=${PAGE}${after}`).catch((error) => {
      if (error.code !== "job_not_found") throw error;
      return { data: [], has_more: true };
    });
    this.#more = has_more;
    data.forEach((job) => this.#put(job));
  }

  /** Reads a job that may not be among those that were read, if it is there. */
  async find(id) {
    if (this.#all.has(id)) return;
    const job = await json(`/v1/jobs/${id}`).catch((error) => {
      if (error.code !== "job_not_found") throw error;
    });
    if (job) this.#put(job);
  }

  /** Orders pictures, perhaps from `images`: fields that the server answers hashes of. */
  async order(fields, images = null) {
    const job = await order({ ...fields, ...images });
    this.#put(job);
    this.get(job.id).images = images;
    this.#follow();
    return job;
  }

  /** What orders the pictures of a job again; of images that it was made from only this page knows more than hashes. */
  again({ id, request }) {
    const made = ["image", "image_prompt"].some((name) => request[name]) || request.control?.length > 0;
    const images = made ? this.get(id)?.images : {};
    return images && { ...request, mask: undefined, ...images };
  }

  /** Cancels a job that has not ended, or forgets one that has. */
  async remove(id) {
    const answer = await ask(`/v1/jobs/${id}`, { method: "DELETE" }).catch((error) => {
      if (error.code !== "job_not_found") throw error;
      return { status: 204 };
    });
    if (answer.status === 204) this.#forget(id);
    else this.#put(await answer.json());
  }

  /** The job that draws the same without the cache, if there is one. */
  twin({ request }) {
    const same = ["model", "prompt", "negative_prompt", "size", "n", "seed", "steps", "guidance", "guidance_rescale",
      "guidance_interval", "pag_scale", "pag_adaptive_scale", "sampler", "spacing", "image", "mask", "strength", "image_prompt",
      "image_prompt_weight"];
    const fits = ({ job }) => job.request.cache === "off" && job.request.output_format === "png"
      && same.every((name) => job.request[name] === request[name])
      && ["lora", "control"].every((name) => JSON.stringify(job.request[name]) === JSON.stringify(request[name]))
      && (isLive(job) || job.result?.pictures.every((picture) => picture.kept));
    return this.list().find(fits)?.job;
  }

  #put(job) {
    const known = this.#all.get(job.id);
    if (known) {
      if (!isLive(known.job) && isLive(job)) return; // read before the end was told
      Object.assign(known, { job });
      if (job.plan.length > known.plan.length) known.plan = job.plan;
    } else {
      this.#all.set(job.id, { job, plan: job.plan, seconds: [], previews: [], last: null });
      this.#sorted = null;
    }
    const entry = this.#all.get(job.id);
    if (!isLive(job)) {
      entry.seconds = job.result?.step_seconds ?? entry.seconds;
      this.#end(entry);
    }
    this.#tell("job", job.id);
  }

  #end(entry) {
    entry.previews.forEach((url) => URL.revokeObjectURL(url));
    entry.previews = [];
  }

  #forget(id) {
    const entry = this.#all.get(id);
    if (!entry) return;
    this.#end(entry);
    this.#all.delete(id);
    this.#sorted = null;
    this.#streams.get(id)?.abort();
    this.#tell("gone", id);
  }

  #tell(name, id) {
    this.dispatchEvent(new CustomEvent(name, { detail: id }));
  }

  /** Tells of a step, with those that come soon after it. */
  #step(id) {
    if (this.#stepped.size === 0) {
      setTimeout(() => {
        const ids = [...this.#stepped];
        this.#stepped.clear();
        for (const id of ids) if (this.#all.has(id)) this.#tell("step", id);
      }, STEPS);
    }
    this.#stepped.add(id);
  }

  /** Reads streams while somebody looks, of the oldest jobs, and asks now and then for the others. */
  #follow() {
    const live = this.list().filter(({ job }) => isLive(job)).reverse();
    const seen = !document.hidden;
    for (const [id, stream] of this.#streams) if (!seen) stream.abort(), this.#streams.delete(id);
    for (const { job } of live) {
      if (seen && this.#streams.size < STREAMS && !this.#streams.has(job.id)) this.#read(job.id);
    }
    clearTimeout(this.#timer);
    if (live.some(({ job }) => !this.#streams.has(job.id))) this.#timer = setTimeout(() => this.#look(), LOOK);
  }

  async #look() {
    for (const { job } of this.list().filter(({ job }) => isLive(job) && !this.#streams.has(job.id))) {
      try {
        this.#put(await json(`/v1/jobs/${job.id}`));
      } catch (error) {
        if (error.code === "job_not_found") this.#forget(job.id);
      }
    }
    this.#follow();
  }

  async #read(id) {
    const stream = new AbortController();
    this.#streams.set(id, stream);
    const entry = this.#all.get(id);
    try {
      const headers = entry.last ? { "last-event-id": entry.last } : {};
      const answer = await ask(`/v1/jobs/${id}/events`, { headers, signal: stream.signal });
      if (answer.status === 204) this.#put(await json(`/v1/jobs/${id}`));
      else for await (const event of sentEvents(answer)) this.#hear(entry, event);
    } catch (error) {
      if (error instanceof Problem && error.code === "job_not_found") this.#forget(id);
    }
    if (this.#streams.get(id) === stream) this.#streams.delete(id);
    if (stream.signal.aborted) return;
    // One that was cut off is not asked for again at once.
    if (isLive(entry.job)) setTimeout(() => this.#follow(), LOOK);
    else this.#follow();
  }

  #hear(entry, { name, id, data }) {
    const { job } = entry;
    if (id) entry.last = id;
    if (name === "queued") this.#put({ ...job, status: "queued", queue_position: data.position });
    if (name === "started") {
      Object.assign(entry, { plan: [], seconds: [] });
      this.#put({ ...job, status: "running", queue_position: null, plan: [] });
    }
    if (name === "step") {
      entry.plan = [...entry.plan.slice(0, data.step - 1), data.mark];
      entry.seconds = [...entry.seconds.slice(0, data.step - 1), data.seconds];
      this.#step(job.id);
    }
    if (name === "preview") {
      this.#end(entry);
      entry.previews = data.images.map((base64) => {
        const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
        return URL.createObjectURL(new Blob([bytes], { type: "image/png" }));
      });
      this.#tell("preview", job.id);
    }
    if (data.job) this.#put(data.job);
  }
}

/** The jobs. */
export const jobs = new Jobs();

/** Seconds until a job that is drawn is done, by the steps so far; nothing before there are two. */
export function left({ job, seconds }) {
  const known = seconds.slice(1);
  if (!known.length) return null;
  return (known.reduce((sum, step) => sum + step) / known.length) * (job.steps - seconds.length);
}
