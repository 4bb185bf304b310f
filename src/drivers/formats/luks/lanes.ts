// SPDX-License-Identifier: Apache-2.0
// What lanes may read and fill of an encrypted payload: the ranges of the file, with its cipher.
//
// Zeroes cannot be left out of the file: a hole would be read as what zeroes decrypt to.

import type { Eventually } from '../../../base/index.js';
import type {
  PieceOutcome,
  ReservedPiece,
  TargetReservation,
} from '../../../block/index.js';
import type { CipherKey } from '../../../crypto/index.js';

/** Null, and nothing is reserved, where the file would have to link new space itself. */
export function encryptedReservation(
  below: TargetReservation | null,
  payload: {
    readonly key: CipherKey;
    /** Where in the file the payload begins. */
    readonly payloadOffset: number;
    readonly writeZeroes: (offset: number, length: number) => Promise<void>;
  },
): TargetReservation | null {
  if (below === null) return null;
  const { key, payloadOffset } = payload;
  const pieces: ReservedPiece[] = [];
  for (const piece of below.pieces) {
    const offset = piece.offset - payloadOffset;
    const isWhole = piece.length % key.sectorBytes === 0;
    if (piece.fresh || piece.cipher !== undefined || !isWhole) {
      below.abandon();
      return null;
    }
    pieces.push({ ...piece, offset, cipher: { key, offset }, storesZeroes: true });
  }
  return {
    pieces,
    link: (outcomes) => linkPieces({ below, pieces, outcomes }, payload.writeZeroes),
    abandon: () => below.abandon(),
  };
}

function linkPieces(
  linking: {
    readonly below: TargetReservation;
    readonly pieces: readonly ReservedPiece[];
    readonly outcomes: readonly PieceOutcome[];
  },
  writeZeroes: (offset: number, length: number) => Promise<void>,
): Eventually<void> {
  const { below, pieces, outcomes } = linking;
  if (!outcomes.includes('zero')) return below.link(outcomes);
  return linkZeroes();

  async function linkZeroes(): Promise<void> {
    await below.link(outcomes.map((outcome) => (outcome === 'zero' ? 'dropped' : outcome)));
    for (const [index, { offset, length }] of pieces.entries()) {
      if (outcomes[index] === 'zero') await writeZeroes(offset, length);
    }
  }
}
