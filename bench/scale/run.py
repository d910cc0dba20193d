#!/usr/bin/env python3
"""How many pictures a second a hydit-serve gets out of 1 to 1,000 Tritons, and what gives out first: simulated.

    run.py [--front-ms MS] [--seconds S] [--cores N] [--network GBIT]

Orders arrive at random (Poisson) at a share of what the hosts can draw together, and go the way of `--backend triton`: into
a bounded queue, to the host with the least to do, which holds one call per instance and one more; before that the front
makes the tables of a picture, on as many at a time as it has cores, and sends them through its network.
--front-ms is the front's time per picture, which `measure.py` beside this file gives; --seconds is a picture's on a host.
"""

import argparse
import heapq
import random

#: Bytes of a call besides its noise at 1024x1024: tokens, latents, rotary tables. The answer's pixels are no more, and go
#: the other way.
CALL = 2 * (77 + 256) * 16 + 4 * 128 * 128 * 4 + 2 * 64 * 64 * 88 * 4
#: Noise of a step at 1024x1024. Only ddpm sends it, for all its steps.
NOISE = 4 * 128 * 128 * 4


class Station:
    """`servers` that work on one order each, in turn."""

    def __init__(self, servers):
        self.free = [0.0] * servers

    def pass_through(self, now, time):
        start = max(now, heapq.heappop(self.free))
        heapq.heappush(self.free, start + time)
        return start + time


def simulate(hosts, load, args, sent, orders, queue):
    """Serves `orders` orders; gives pictures a second, those refused, and the waiting time that 99 of 100 stay below."""
    dice = random.Random(hosts * 1000 + int(100 * load))
    rate = load * hosts / args.seconds
    front, network = Station(args.cores), Station(1)
    transfer = sent * 8 / (args.network * 1e9)
    idle = [(0.0, host) for host in range(hosts) for _ in range(2)]  # two places each
    heapq.heapify(idle)
    busy_until = [0.0] * hosts
    begun = []  # when those accepted begin: who has not begun at an arrival waits
    waits, refused, now, last = [], 0, 0.0, 0.0
    for _ in range(orders):
        now += dice.expovariate(rate)
        while begun and begun[0] <= now:
            heapq.heappop(begun)
        if len(begun) >= queue:
            refused += 1
            continue
        place, host = heapq.heappop(idle)
        taken = max(now, place)
        there = network.pass_through(front.pass_through(taken, args.front_ms / 1e3), transfer)
        start = max(there, busy_until[host])
        done = start + args.seconds * dice.uniform(0.9, 1.1)
        busy_until[host] = done
        heapq.heappush(idle, (done, host))
        heapq.heappush(begun, taken)
        waits.append(start - now)
        last = max(last, done)
    waits.sort()
    return len(waits) / last, refused / orders, waits[int(0.99 * len(waits))]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--front-ms", type=float, default=57.0)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--cores", type=int, default=8)
    parser.add_argument("--network", type=float, default=10.0)
    args = parser.parse_args()
    print("| hosts | asked for, of what they can draw | sampler | pictures a second | refused | 99 of 100 wait less than |")
    print("|--:|--:|---|--:|--:|--:|")
    for hosts in (1, 10, 100, 1000):
        for load in (0.8, 0.95, 1.2):
            for sampler, sent in (("dpmms", CALL), ("ddpm, 50 steps", CALL + 50 * NOISE)):
                rate, refused, wait = simulate(hosts, load, args, sent, 200 * hosts + 2000, max(64, 2 * hosts))
                print(f"| {hosts:,} | {load:.0%} | {sampler} | {rate:.2f} | {refused:.1%} | {wait:.1f} s |")
    print(f"\nLimits of one front: {args.cores * 1e3 / args.front_ms:.0f} pictures a second by its processor, "
          f"{args.network * 1e9 / 8 / CALL:.0f} by its network, {args.network * 1e9 / 8 / (CALL + 50 * NOISE):.0f} with the "
          "noise of ddpm.")


main()
