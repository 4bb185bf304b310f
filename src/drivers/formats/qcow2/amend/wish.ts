// SPDX-License-Identifier: Apache-2.0
// What an amendment asks for, and every reason to refuse it, before anything is changed.
//
// The words are the reference's; it finds some of these only after other changes were made.

import { bitNumbers, BlockError, hasBit } from '../../../../base/index.js';
import type { AmendOptions } from '../../../../block/index.js';
import { luksAmendMembers } from '../../../../crypto/options.js';
import type { LuksAmendMembers } from '../../../../crypto/options.js';
import { validate } from '../../../../schema/index.js';
import { Autoclear, Incompatible } from '../layout.js';
import type { Qcow2Image } from '../metadata/index.js';
import { refcountOrderOf } from '../widths.js';

/** Null: stays as it is. */
export interface Wish {
  readonly version: 2 | 3 | null;
  readonly refcountOrder: number | null;
  readonly lazyRefcounts: boolean | null;
  /** Bytes. */
  readonly size: number | null;
  readonly dataFile: string | null;
  /** The only change there can be: not raw any more. */
  readonly dropsRaw: boolean;
  readonly keyslots: LuksAmendMembers | null;
}

const NEWER = '(use compat=1.1 or greater)';

/** Throws kind `invalid-option` or `unsupported`; `options` are as `img amend -o` names them. */
export function wishOf(image: Qcow2Image, options: AmendOptions): Wish {
  const present = image.version === 2 ? 2 : 3;
  const version = versionOf(options.compat) ?? present;
  const keyslots = keyslotsWished(image, options);
  const { refcount_bits: bits } = options;
  const order = bits === undefined ? image.geometry.refcountOrder : refcountOrderOf(bits);
  const dropsRaw = requireDataFile(image, options);
  if (order !== image.geometry.refcountOrder && order !== 4 && version < 3) {
    throw invalid(
      'Refcount widths other than 16 bits require compatibility level 1.1 or above ' + NEWER,
    );
  }
  requireSameBacking(image, options);
  const lazy = options.lazy_refcounts ?? image.lazyRefcounts;
  if (lazy && !image.lazyRefcounts && version < 3) {
    const text = `Lazy refcounts only supported with compatibility level 1.1 and above ${NEWER}`;
    throw invalid(text);
  }
  const size = options.size ?? image.size;
  if (size % 512 !== 0) throw invalid('The new size must be a multiple of 512');
  if (version < present) requireOlder(image, { size, order });
  return {
    version: version === present ? null : version,
    refcountOrder: order === image.geometry.refcountOrder ? null : order,
    lazyRefcounts: lazy === image.headerIsLazy || version < 3 ? null : lazy,
    size: size === image.size ? null : size,
    dataFile: options.data_file ?? null,
    dropsRaw,
    keyslots,
  };
}

/** The member `format` is of those who ask a running program, who are told in other words. */
function keyslotsWished(image: Qcow2Image, options: AmendOptions): LuksAmendMembers | null {
  const given = Object.entries(options).filter(([name]) => name.startsWith('encrypt.'));
  if (given.length === 0) return null;
  const { format, ...members } = Object.fromEntries(
    given.map(([name, value]) => [name.slice('encrypt.'.length), value]),
  );
  const asked = format !== undefined;
  if (image.cipher === null) {
    throw invalid(
      asked
        ? "image is not encrypted, can't amend"
        : "Can't amend encryption options - encryption not present",
    );
  }
  if (asked && format !== 'luks') {
    throw invalid("Amend can't be used to change the qcow2 encryption format");
  }
  if (image.cipher.format !== 'luks') {
    const where = asked ? ' for qcow2 with blockdev-amend' : '';
    throw invalid(`Only LUKS encryption options can be amended${where}`);
  }
  return validate(luksAmendMembers, members);
}

function versionOf(text: string | undefined): 2 | 3 | null {
  if (text === undefined || text === '') return null;
  if (text === '0.10' || text === 'v2') return 2;
  if (text === '1.1' || text === 'v3') return 3;
  throw invalid(`Unknown compatibility level ${text}`);
}

function requireDataFile(image: Qcow2Image, options: AmendOptions): boolean {
  if (options.data_file !== undefined && !image.hasDataFile) {
    throw invalid('data-file can only be set for images that use an external data file');
  }
  const { autoclearFeatures } = image.structures.header.fields;
  const isRaw = hasBit(autoclearFeatures, Autoclear.rawExternalData);
  if (options.data_file_raw === true && !isRaw) {
    throw invalid('data-file-raw cannot be set on existing images');
  }
  return options.data_file_raw === false && isRaw;
}

function requireSameBacking(image: Qcow2Image, options: AmendOptions): void {
  const { backing_file: file, backing_fmt: format } = options;
  if (file === undefined && format === undefined) return;
  const link = image.structures.backingLink();
  if (file === link?.file && format === (link?.format ?? undefined)) return;
  throw new BlockError('invalid-option', 'Cannot amend the backing file', {
    hint: "You can use 'qemu-img rebase' instead.",
  });
}

function requireOlder(
  image: Qcow2Image,
  next: { readonly size: number; readonly order: number },
): void {
  if (image.hasDataFile) throw unsupported('Cannot downgrade an image with a data file');
  const snapshots = image.snapshots.snapshots;
  for (const { vmStateSize, diskSize } of snapshots) {
    if (vmStateSize === 0 && (diskSize ?? next.size) === next.size) continue;
    throw unsupported('Internal snapshots prevent downgrade of image');
  }
  const { header } = image.structures;
  // Dirty is gone by then; what is compressed decides on the type.
  const passing: readonly number[] = [Incompatible.dirty, Incompatible.compressionType];
  const bits = bitNumbers(header.fields.incompatibleFeatures).filter(
    (bit) => !passing.includes(bit),
  );
  if (bits.length > 0) {
    const word = bits.reduce((sum, bit) => sum + 2 ** bit, 0).toString(16);
    throw unsupported(`Cannot downgrade an image with incompatible features 0x${word} set`);
  }
  if (header.bitmaps !== null) {
    throw unsupported('Cannot downgrade an image with persistent bitmaps');
  }
  if (next.order !== 4) throw unsupported('compat=0.10 requires refcount_bits=16');
}

function invalid(message: string): BlockError {
  return new BlockError('invalid-option', message);
}

function unsupported(message: string): BlockError {
  return new BlockError('unsupported', message);
}
