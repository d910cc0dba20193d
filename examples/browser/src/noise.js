// torch.randn of a seeded CPU generator, for multiples of 16 numbers: the same seed is the same picture as elsewhere.
const WORDS = 624;
const MIDDLE = 397;

export function randn(seed, count) {
  const state = new Uint32Array(WORDS);
  state[0] = seed;
  for (let j = 1; j < WORDS; j++) {
    const last = state[j - 1];
    state[j] = Math.imul(1812433253, last ^ (last >>> 30)) + j;
  }
  let next = WORDS;
  const uniform = () => {
    if (next === WORDS) {
      twist(state);
      next = 0;
    }
    let word = state[next++];
    word ^= word >>> 11;
    word ^= (word << 7) & 0x9d2c5680;
    word ^= (word << 15) & 0xefc60000;
    word ^= word >>> 18;
    return (word & 0xffffff) / (1 << 24);
  };
  const numbers = Float32Array.from({ length: count }, uniform);
  for (let start = 0; start < count; start += 16) {
    for (let i = start; i < start + 8; i++) {
      const radius = Math.sqrt(-2 * Math.log(1 - numbers[i]));
      const angle = 2 * Math.PI * numbers[i + 8];
      numbers[i] = radius * Math.cos(angle);
      numbers[i + 8] = radius * Math.sin(angle);
    }
  }
  return numbers;
}

function twist(state) {
  for (let j = 0; j < WORDS; j++) {
    const mixed = (state[j] & 0x80000000) | (state[(j + 1) % WORDS] & 0x7fffffff);
    state[j] = state[(j + MIDDLE) % WORDS] ^ (mixed >>> 1) ^ (mixed & 1 ? 0x9908b0df : 0);
  }
}
