// A zip archive of files as they are: pictures are compressed already.

const TABLE = Uint32Array.from({ length: 256 }, (_, n) => {
  for (let i = 0; i < 8; i++) n = n & 1 ? (n >>> 1) ^ 0xedb88320 : n >>> 1;
  return n;
});

function crc32(bytes) {
  let crc = ~0;
  for (const byte of bytes) crc = TABLE[(crc ^ byte) & 255] ^ (crc >>> 8);
  return ~crc >>> 0;
}

/** Numbers of 2 and 4 bytes, as `[size, value]`, in the order of zip. */
function numbers(...all) {
  const view = new DataView(new ArrayBuffer(all.reduce((sum, [size]) => sum + size, 0)));
  let at = 0;
  for (const [size, value] of all) {
    if (size === 2) view.setUint16(at, value, true);
    else view.setUint32(at, value, true);
    at += size;
  }
  return view.buffer;
}

/** Names are in UTF-8; files have the first day that zip knows, 1 January 1980. */
const about = (name, crc, size) => [[2, 20], [2, 1 << 11], [2, 0], [2, 0], [2, 33], [4, crc], [4, size], [4, size],
  [2, name.length], [2, 0]];

/**
 * The archive of `files`, an async iterable of `{ name, blob }`. One file at a time is in the memory; what is done is kept
 * by the browser as blobs, which it puts on the disk.
 */
export async function zip(files) {
  const parts = [];
  const directory = [];
  let [at, count, listed] = [0, 0, 0];
  for await (const { name, blob } of files) {
    const text = new TextEncoder().encode(name);
    const same = about(text, crc32(new Uint8Array(await blob.arrayBuffer())), blob.size);
    const head = numbers([4, 0x04034b50], ...same);
    parts.push(head, text, blob);
    const entry = numbers([4, 0x02014b50], [2, 20], ...same, [2, 0], [2, 0], [2, 0], [4, 0], [4, at]);
    directory.push(entry, text);
    at += head.byteLength + text.length + blob.size;
    listed += entry.byteLength + text.length;
    count += 1;
  }
  const end = numbers([4, 0x06054b50], [2, 0], [2, 0], [2, count], [2, count], [4, listed], [4, at], [2, 0]);
  return new Blob([...parts, ...directory, end], { type: "application/zip" });
}
