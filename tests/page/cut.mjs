// A prompt that is longer than the text encoders read: marked before it is drawn, told afterwards.
import assert from "node:assert/strict";
import { api, draw, drawn, errorsWereWanted, look, open, violations } from "./browser.mjs";

const reading = (prompt) => api("/v1/tokenize", { method: "POST", body: { prompt } });
/// The texts of the field's marks: what both read, what one reads, what none does.
const parts = (page, name) => page.locator(`#field-${name} .marks-of-text`).evaluate((layer) =>
  [layer.firstChild.data, ...[...layer.querySelectorAll("mark")].map((mark) => mark.textContent)]);
const first = (text, n) => [...text].slice(0, n).join("");

/// The marks stand where the server says that each encoder stops, over the same words of the text, in both languages.
export async function marked() {
  for (const [locale, prompt, words] of [["en-GB", "one red apple on a table, ".repeat(14), /CLIP reads 77 tokens, to “.+”\. mT5 reads all\. What is underlined/],
    ["zh-CN", "一只戴着红围巾的猫坐在雪地里，🐱".repeat(30), /CLIP 读取 77 个词元，到“.+”为止。 mT5 读取 256 个词元/]]) {
    for (const colorScheme of ["light", "dark"]) {
      const page = await open({ locale, colorScheme, viewport: locale === "zh-CN" && colorScheme === "dark" ? { width: 360, height: 740 } : { width: 1280, height: 900 } });
      await page.fill("#prompt", prompt);
      await page.locator("#field-prompt .cut-at").filter({ hasText: words }).waitFor();
      const [clip, mt5] = (await reading(prompt)).encoders.map(({ truncated, characters }) => (truncated ? characters : [...prompt].length));
      const texts = [first(prompt, clip), [...prompt].slice(clip, mt5).join(""), [...prompt].slice(mt5).join("")];
      assert.deepEqual(await parts(page, "prompt"), texts);
      // As wide as the text, and scrolled as far: the mark begins where the text area has that character.
      const [layer, area] = await page.evaluate(() => {
        const [layer, area] = [document.querySelector("#field-prompt .marks-of-text"), document.querySelector("#prompt")];
        area.scrollTop = 60;
        return [layer, area].map(({ clientWidth, scrollHeight }) => [clientWidth, scrollHeight]);
      });
      assert.deepEqual(layer, area);
      await page.waitForFunction(() => document.querySelector("#field-prompt .marks-of-text").scrollTop === document.querySelector("#prompt").scrollTop);
      assert.deepEqual(await violations(page), []);
      await look(page, `cut-${locale}-${colorScheme}`);
      await page.fill("#prompt", first(prompt, clip));
      await page.locator("#field-prompt .cut-at").waitFor({ state: "hidden" });
      assert.ok(await page.locator("#field-prompt .marks-of-text").isHidden());
      await page.context().close();
    }
  }
  const page = await open();
  await page.fill("#negative_prompt", "no red apples, ".repeat(40));
  await page.locator("#field-negative_prompt .cut-at").waitFor();
  assert.ok(await page.locator("#field-prompt .cut-at").isHidden());
  // What the server does not answer is not marked, and not told as trouble.
  await page.route("**/v1/tokenize", (route) => route.abort());
  const failed = page.waitForEvent("requestfailed");
  await page.fill("#prompt", "one red apple, ".repeat(40));
  await failed;
  await page.fill("#negative_prompt", "");
  await page.locator("#field-negative_prompt .cut-at").waitFor({ state: "hidden" });
  assert.ok(await page.locator("#field-prompt .cut-at").isHidden());
  assert.equal(await page.locator("#trouble .trouble").count(), 0);
  errorsWereWanted();
}

/// Its picture says so, and so does the gallery.
export async function told() {
  const page = await open();
  await drawn(page, await draw(page, { prompt: "one red apple ".repeat(40).trim(), steps: 2, sampler: "ddim" }));
  await page.getByText("Longer than the model reads, so that the end was left out: What to draw.").waitFor();
  assert.equal(await page.locator(".grid .cut").count(), 1, "its picture in the gallery, and no other");
  assert.match(await page.locator(".grid li:has(.cut) button").getAttribute("aria-label"), /the end was left out/);
  assert.deepEqual(await violations(page), []);
  await page.locator(".grid").scrollIntoViewIfNeeded();
  await look(page, "cut");
}
