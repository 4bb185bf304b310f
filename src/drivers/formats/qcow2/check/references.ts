// SPDX-License-Identifier: Apache-2.0
// References to host clusters, counted by sweeping the tables of an image.
//
// They live in pages of 65,536 clusters that exist only where something refers to a cluster: a
// short list of clusters first, then one byte for each cluster, four once a count passes 255. So
// memory follows the references and not the length of a sparse file.

const PAGE_BITS = 16;
const PAGE_CLUSTERS = 1 << PAGE_BITS;
/** References that a page lists before it counts by cluster. */
const LISTED = 256;
/** Where counts stay, however often a hostile image refers to a cluster. */
const MAX_COUNT = 0xffff_ffff;

/** References within one page: `list` holds the first `length` cluster numbers, in any order. */
interface Page {
  list: Uint16Array;
  length: number;
  counts: Uint8Array | Uint32Array | null;
}

/** How often each host cluster is referred to. */
export class ReferenceCounts {
  readonly #pages = new Map<number, Page>();
  /** The first cluster behind all that were counted. */
  end = 0;
  /** Page numbers in order; made when counting is over. */
  #sorted: readonly number[] | null = null;
  /** The page used last: neighbours mostly lie in it. */
  #number = -1;
  #page: Page | undefined;

  /** Counts `times` references, at least 1. */
  add(cluster: number, times = 1): void {
    if (cluster >= this.end) this.end = cluster + 1;
    const number = Math.floor(cluster / PAGE_CLUSTERS);
    const index = cluster % PAGE_CLUSTERS;
    const page = this.#pageAt(number) ?? this.#newPage(number);
    if (page.counts === null && page.length + times <= LISTED) appendTo(page, index, times);
    else countIn(page, index, times);
  }

  get(cluster: number): number {
    const page = this.#pageAt(Math.floor(cluster / PAGE_CLUSTERS));
    if (page === undefined) return 0;
    const index = cluster % PAGE_CLUSTERS;
    if (page.counts !== null) return page.counts[index] ?? 0;
    let count = 0;
    for (let at = 0; at < page.length; at += 1) if (page.list[at] === index) count += 1;
    return count;
  }

  /**
   * The counts of `clusters` clusters from `from` on, as far as they are counted one by one and lie
   * together; else null: get() tells.
   */
  counts(from: number, clusters: number): Uint8Array | Uint32Array | null {
    const index = from % PAGE_CLUSTERS;
    if (index + clusters > PAGE_CLUSTERS) return null;
    const counts = this.#pageAt((from - index) / PAGE_CLUSTERS)?.counts ?? null;
    return counts === null ? null : counts.subarray(index, index + clusters);
  }

  /** Some cluster is counted more than once. */
  hasShared(): boolean {
    for (const { list, length, counts } of this.#pages.values()) {
      if (counts !== null && holdsMoreThanOne(counts)) return true;
      if (new Set(list.subarray(0, length)).size < length) return true;
    }
    return false;
  }

  /** The first cluster from `from` on that has a count; Infinity when there is none. */
  next(from: number): number {
    this.#sorted ??= [...this.#pages.keys()].toSorted((a, b) => a - b);
    const first = Math.floor(from / PAGE_CLUSTERS);
    let low = 0;
    let high = this.#sorted.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.#sorted[middle] ?? 0) >= first) high = middle;
      else low = middle + 1;
    }
    for (; low < this.#sorted.length; low += 1) {
      const number = this.#sorted[low] ?? 0;
      const page = this.#pages.get(number);
      const index = page === undefined ? -1 : nextIn(page, number === first ? from : 0);
      if (index >= 0) return number * PAGE_CLUSTERS + index;
    }
    return Infinity;
  }

  #pageAt(number: number): Page | undefined {
    if (number !== this.#number) {
      this.#number = number;
      this.#page = this.#pages.get(number);
    }
    return this.#page;
  }

  #newPage(number: number): Page {
    const page = { list: new Uint16Array(4), length: 0, counts: null };
    this.#pages.set(number, page);
    this.#sorted = null;
    this.#page = page;
    return page;
  }
}

function holdsMoreThanOne(counts: Uint8Array | Uint32Array): boolean {
  for (let index = 0; index < counts.length; index += 1) {
    if ((counts[index] ?? 0) > 1) return true;
  }
  return false;
}

function appendTo(page: Page, index: number, times: number): void {
  const { length } = page;
  if (length + times > page.list.length) {
    const longer = new Uint16Array(Math.max(page.list.length * 2, length + times));
    longer.set(page.list);
    page.list = longer;
  }
  page.list.fill(index, length, length + times);
  page.length = length + times;
}

function countIn(page: Page, index: number, times: number): void {
  let counts = page.counts;
  if (counts === null) {
    // A cluster that is listed 256 times does not fit a byte.
    counts = new Uint32Array(PAGE_CLUSTERS);
    for (const listed of page.list.subarray(0, page.length)) {
      counts[listed] = (counts[listed] ?? 0) + 1;
    }
    if (!counts.some((count) => count > 0xff)) counts = Uint8Array.from(counts);
    page.list = page.list.subarray(0, 0);
    page.length = 0;
  }
  const count = Math.min((counts[index] ?? 0) + times, MAX_COUNT);
  if (count > 0xff && counts instanceof Uint8Array) counts = Uint32Array.from(counts);
  counts[index] = count;
  page.counts = counts;
}

/** Index of the first counted cluster of a page from `from` (modulo the page) on, or −1. */
function nextIn(page: Page, from: number): number {
  const first = from % PAGE_CLUSTERS;
  const { counts } = page;
  if (counts !== null) {
    let index = first;
    while (index < PAGE_CLUSTERS && counts[index] === 0) index += 1;
    return index < PAGE_CLUSTERS ? index : -1;
  }
  let best = -1;
  for (let at = 0; at < page.length; at += 1) {
    const index = page.list[at] ?? 0;
    if (index >= first && (best < 0 || index < best)) best = index;
  }
  return best;
}
