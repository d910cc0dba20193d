// The page: what it asks of the worker, and what it shows of the answers.
const $ = (id) => document.getElementById(id);
const worker = new Worker("worker.js", { type: "module" });
let plans = {};
let names = [];
/// Seconds of the last picture of each plan.
const seconds = {};

const chosen = () => names[$("plan").valueAsNumber];
const label = (name) => (name === "off" ? "off: the deep core runs at every step" : `${name}: ${plans[name].filter(Boolean).length} of ${plans[name].length} steps run the deep core`);

function show() {
  const name = chosen();
  $("plan-name").textContent = label(name);
  $("strip").replaceChildren(
    ...plans[name].map((refreshes, i) => {
      const mark = document.createElement("i");
      mark.className = refreshes ? "refresh" : "reuse";
      mark.title = `step ${i + 1}: ${refreshes ? "refresh" : "reuse"}`;
      return mark;
    }),
  );
  $("strip").setAttribute("aria-label", label(name));
}

function tell(text, wrong = false) {
  $("status").textContent = text;
  $("status").className = wrong ? "wrong" : "";
}

function drawn({ plan, seconds: took, width, height, pixels, cut }) {
  const canvas = $("picture");
  [canvas.width, canvas.height] = [width, height];
  const image = new ImageData(width, height);
  for (let i = 0; i < width * height; i++) {
    image.data.set(pixels.subarray(3 * i, 3 * i + 3), 4 * i);
    image.data[4 * i + 3] = 255;
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
  seconds[plan] = took;
  const gain = plan !== "off" && seconds.off ? `, ${(seconds.off / took).toFixed(2)} times as fast as without the cache` : "";
  tell(`${took.toFixed(2)} s${gain}${cut ? "; the prompt is longer than the model reads, its end has no effect" : ""}`);
  $("draw").disabled = false;
}

worker.onmessage = ({ data }) => {
  if (data.error) {
    tell(data.error, true);
    $("draw").disabled = !names.length;
  } else if (data.plans) {
    plans = data.plans;
    names = Object.keys(plans);
    $("plan").max = names.length - 1;
    $("plan").value = Math.min(2, names.length - 1);
    for (const id of ["plan", "draw"]) $(id).disabled = false;
    show();
    $("engine").textContent = `Runs in ${data.engine}.`;
    tell("ready");
  } else if (data.pixels) {
    drawn(data);
  } else {
    tell(`loading the model: ${Math.round(100 * data.loaded)} %`);
  }
};
worker.onerror = (event) => tell(event.message ?? "the worker does not start", true);

$("plan").addEventListener("input", show);
$("form").addEventListener("submit", (event) => {
  event.preventDefault();
  $("draw").disabled = true;
  tell("drawing");
  worker.postMessage({ plan: chosen(), prompt: $("prompt").value, seed: $("seed").valueAsNumber });
});
