// SPDX-License-Identifier: Apache-2.0
// A LUKS version 2 header area put back from a backup, so that a power cut takes no key away.
//
// Where the image's header is of the same master key and geometry, key material comes first that
// lies where no present keyslot does, then the two copies of the header, then the rest: so the old
// keyslots open until the new ones do. The copy that does not count is written first, and flushed
// before the other one, so one that is whole is always there; whichever of them a reader believes,
// its keyslots are in place. Where each new keyslot lies over an old one, one of them is put
// beside those first, by a header of its own with a higher sequence number.
//
// Otherwise the old header cannot live beside the new: its copies go first, those of the new one
// come last. A power cut in between leaves no header, and the backup to begin again.

import { BlockError } from '../../base/index.js';
import type { LuksArea } from '../luks/index.js';
import { hasLuksMagic, isLuks1, restoreHeader } from '../luks/index.js';
import type { Luks2Backup } from './backup.js';
import { copyPair } from './encode.js';
import type { CopyPair } from './encode.js';
import { headerOf, isLuks2, newerOf, readCopies } from './header.js';
import type { Luks2Header } from './header.js';
import { ownKeyslots } from './keyslots.js';
import { BINARY_BYTES, COPY_BYTES, HEADER_OFFSET_AT, SECOND_MAGIC } from './layout.js';
import type { Luks2Keyslot } from './metadata.js';

const SECTOR_BYTES = 512;
const PAGE_BYTES = 4096;
/** What differs is written in pieces of at most this many bytes. */
const PIECE_BYTES = 1024 * 1024;

/** Bytes from the header's start. */
interface Span {
  readonly start: number;
  readonly end: number;
}

/**
 * Durable when it resolves. `length`: bytes that the area has, at least those of the backup.
 * Throws kind `no-space`, with nothing changed, where no key can be kept meanwhile; with `force`
 * none is.
 */
export async function restoreHeader2(
  { area, length }: { readonly area: LuksArea; readonly length: number },
  backup: Luks2Backup,
  { force }: { readonly force: boolean },
): Promise<void> {
  const present = await presentHeader(area, length);
  const now = await area.read(0, backup.bytes.length);
  if (present !== null && isSameVolume(present.header, backup.header)) {
    const exchange = new Exchange(area, { now, present, backup });
    if (exchange.isPossible) return exchange.run();
    if (!force) {
      throw new BlockError(
        'no-space',
        'LUKS2 header: its area has no room for a key that opens the image meanwhile',
      );
    }
  }
  await eraseCopies2({ area, length });
  await replace(area, backup);
}

/**
 * A backup of version 1 put back, whatever is there: a second copy of version 2 would be taken for
 * the header while there is no first one. Durable when it resolves.
 */
export async function restoreHeader1(
  { area, length }: { readonly area: LuksArea; readonly length: number },
  backup: Uint8Array,
): Promise<void> {
  const head = await area.read(0, SECTOR_BYTES);
  if (!isLuks1(head)) await eraseCopies2({ area, length });
  await restoreHeader(area, backup);
}

/** Takes away what begins a header of either version and second copies; durable. */
export async function eraseCopies2({
  area,
  length,
}: {
  readonly area: LuksArea;
  readonly length: number;
}): Promise<void> {
  const places = [0, ...COPY_BYTES].filter((offset) => offset + BINARY_BYTES <= length);
  let isChanged = false;
  for (const offset of places) {
    const sector = await area.read(offset, SECTOR_BYTES);
    if (!(offset === 0 ? hasLuksMagic(sector) : isSecondCopy(sector, offset))) continue;
    await area.write(offset, new Uint8Array(SECTOR_BYTES));
    isChanged = true;
  }
  if (isChanged) await area.flush();
}

function isSecondCopy(sector: Uint8Array, offset: number): boolean {
  const isMagic = SECOND_MAGIC.every((byte, index) => sector[index] === byte);
  const view = new DataView(sector.buffer, sector.byteOffset, sector.byteLength);
  return isMagic && view.getBigUint64(HEADER_OFFSET_AT) === BigInt(offset);
}

interface Present {
  readonly header: Luks2Header;
  readonly believed: keyof CopyPair;
}

/** Null where there is none that makes sense here. */
async function presentHeader(area: LuksArea, length: number): Promise<Present | null> {
  try {
    const head = await area.read(0, SECTOR_BYTES);
    // Of version 1, beside which a second copy is one that was left over.
    if (hasLuksMagic(head) && !isLuks2(head)) return null;
    const copies = await readCopies(area, length);
    const isPrimary = newerOf(copies) === copies.primary;
    return { header: headerOf(copies), believed: isPrimary ? 'primary' : 'secondary' };
  } catch (error) {
    if (error instanceof BlockError) return null;
    throw error;
  }
}

/** Whether keyslots of the one are of use in the other. */
function isSameVolume(present: Luks2Header, wanted: Luks2Header): boolean {
  return identityOf(present) === identityOf(wanted);
}

function identityOf({ copyBytes, keyslotsBytes, segment, digest }: Luks2Header): string {
  const { hash, iterations, salt, value } = digest;
  const key = { hash, iterations, salt: [...salt], value: [...value] };
  return JSON.stringify({ copyBytes, keyslotsBytes, segment, key });
}

async function replace(
  area: LuksArea,
  { bytes, header }: Luks2Backup,
): Promise<void> {
  const { copyBytes } = header;
  const now = await area.read(0, bytes.length);
  const starts = [0, copyBytes];
  await putSpan(area, { now, wanted: bytes }, { start: copyBytes * 2, end: bytes.length });
  for (const start of starts) {
    const end = start + copyBytes;
    await area.write(start + SECTOR_BYTES, bytes.subarray(start + SECTOR_BYTES, end));
  }
  await area.flush();
  for (const start of starts.reverse()) {
    await area.write(start, bytes.subarray(start, start + SECTOR_BYTES));
    await area.flush();
  }
}

/** Writes what differs. */
async function putSpan(
  area: LuksArea,
  { now, wanted }: { readonly now: Uint8Array; readonly wanted: Uint8Array },
  { start, end }: Span,
): Promise<void> {
  const differs = (at: number): boolean =>
    !isAlike(now, wanted, { start: at, end: at + PAGE_BYTES });
  for (let at = start; at < end; ) {
    if (!differs(at)) {
      at += PAGE_BYTES;
      continue;
    }
    const from = at;
    while (at < end && at - from < PIECE_BYTES && differs(at)) at += PAGE_BYTES;
    const bytes = wanted.subarray(from, Math.min(at, end));
    await area.write(from, bytes);
    now.set(bytes, from);
  }
}

/** A keyslot, and where it is for a while. */
interface Detour {
  readonly keyslot: Luks2Keyslot;
  readonly offset: number;
}

class Exchange {
  readonly #area: LuksArea;
  /** What is on disk. */
  readonly #now: Uint8Array;
  readonly #backup: Luks2Backup;
  readonly #wanted: Uint8Array;
  readonly #present: Present;
  /** Of the backup: those that are in place, and those that can be put there at once. */
  readonly #ready: readonly Span[];
  /** One that is put elsewhere first, where there is no other way. */
  readonly #detour: Detour | null;
  readonly isPossible: boolean;

  constructor(
    area: LuksArea,
    { now, present, backup }: {
      readonly now: Uint8Array;
      readonly present: Present;
      readonly backup: Luks2Backup;
    },
  ) {
    this.#area = area;
    this.#now = now;
    this.#backup = backup;
    this.#wanted = backup.bytes;
    this.#present = present;
    const old = ownKeyslots(present.header).map(spanOf);
    const comes = ownKeyslots(backup.header);
    this.#ready = comes
      .map(spanOf)
      .filter((span) => this.#isPlaced(span) || !old.some((each) => overlaps(each, span)));
    const isNeeded = this.#ready.length === 0 && comes.length > 0 && old.length > 0;
    this.#detour = isNeeded ? detourOf(backup.header, old) : null;
    this.isPossible = !isNeeded || this.#detour !== null;
  }

  async run(): Promise<void> {
    for (const span of this.#ready) await this.#put(span);
    await this.#area.flush();
    if (this.#detour !== null) await this.#takeDetour(this.#detour);
    const { copyBytes } = this.#backup.header;
    const primary = this.#wanted.subarray(0, copyBytes);
    const secondary = this.#wanted.subarray(copyBytes, copyBytes * 2);
    const { believed } = this.#present;
    await this.#putCopies({ primary, secondary }, this.#detour === null ? believed : 'primary');
    await this.#put({ start: copyBytes * 2, end: this.#wanted.length });
    await this.#area.flush();
  }

  async #takeDetour({ keyslot, offset }: Detour): Promise<void> {
    const { start, end } = spanOf(keyslot);
    const material = this.#wanted.subarray(start, end);
    await this.#area.write(offset, material);
    this.#now.set(material, offset);
    await this.#area.flush();
    const { copy } = this.#backup;
    const present = BigInt(this.#present.header.sequence);
    const sequence = (copy.sequence > present ? copy.sequence : present) + 1n;
    const text = textWithOnly(copy.text, { keyslot, offset });
    await this.#putCopies(copyPair(copy, { text, sequence }), this.#present.believed);
    await this.#put({ start, end });
    await this.#area.flush();
  }

  /** The one that counts comes last. */
  async #putCopies(pair: CopyPair, believed: keyof CopyPair): Promise<void> {
    const order = ['primary', 'secondary'] as const;
    const names = believed === 'primary' ? order.toReversed() : order;
    for (const name of names) {
      const offset = name === 'primary' ? 0 : this.#backup.header.copyBytes;
      const bytes = pair[name];
      const old = this.#now.subarray(offset, offset + bytes.length);
      if (Buffer.compare(old, bytes) === 0) continue;
      await this.#area.write(offset, bytes);
      this.#now.set(bytes, offset);
      await this.#area.flush();
    }
  }

  #isPlaced(span: Span): boolean {
    return isAlike(this.#now, this.#wanted, span);
  }

  #put(span: Span): Promise<void> {
    return putSpan(this.#area, { now: this.#now, wanted: this.#wanted }, span);
  }
}

function isAlike(left: Uint8Array, right: Uint8Array, { start, end }: Span): boolean {
  return Buffer.compare(left.subarray(start, end), right.subarray(start, end)) === 0;
}

function spanOf({ areaOffset, areaBytes }: Luks2Keyslot): Span {
  return { start: areaOffset, end: areaOffset + areaBytes };
}

function overlaps(left: Span, right: Span): boolean {
  return left.start < right.end && right.start < left.end;
}

/** A keyslot and a place for it that leaves its own alone and present ones, if only one of them. */
function detourOf(header: Luks2Header, old: readonly Span[]): Detour | null {
  for (const kept of [old, ...old.map((span) => [span])]) {
    for (const keyslot of ownKeyslots(header)) {
      const offset = roomBeside(header, [spanOf(keyslot), ...kept], keyslot);
      if (offset !== null) return { keyslot, offset };
    }
  }
  return null;
}

function roomBeside(
  { copyBytes, keyslotsBytes }: Luks2Header,
  taken: readonly Span[],
  { areaBytes }: Luks2Keyslot,
): number | null {
  const first = copyBytes * 2;
  const ends = taken.map(({ end }) => Math.ceil(end / PAGE_BYTES) * PAGE_BYTES);
  const fits = (start: number): boolean => {
    const span = { start, end: start + areaBytes };
    return span.end <= first + keyslotsBytes && !taken.some((each) => overlaps(each, span));
  };
  return [first, ...ends].find(fits) ?? null;
}

/** The text of a header whose one keyslot lies elsewhere; nothing else names keyslots. */
function textWithOnly(
  bytes: Uint8Array,
  { keyslot, offset }: Detour,
): string {
  const name = String(keyslot.number);
  const end = bytes.indexOf(0);
  const text = JSON.parse(Buffer.from(bytes.subarray(0, end)).toString()) as Metadata;
  const only = text.keyslots[name];
  const digests = Object.entries(text.digests).map(([number, digest]) => [
    number,
    { ...digest, keyslots: digest.keyslots.filter((each) => each === name) },
  ]);
  return JSON.stringify({
    ...text,
    keyslots: { [name]: { ...only, area: { ...only?.area, offset: String(offset) } } },
    tokens: {},
    digests: Object.fromEntries(digests) as unknown,
  });
}

/** What was looked at when the header was read. */
interface Metadata {
  readonly keyslots: Readonly<Record<string, { readonly area: object }>>;
  readonly digests: Readonly<Record<string, { readonly keyslots: readonly string[] }>>;
}
