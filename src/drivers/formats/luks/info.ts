// SPDX-License-Identifier: Apache-2.0
// What `info` tells of a LUKS image: its ciphers, its keyslots, never anything that is secret.

import type { DriverInfo } from '../../../block/index.js';
import { STRIPES } from '../../../crypto/luks/index.js';
import type { LuksHeader } from '../../../crypto/luks/index.js';

export function luksInfo(header: LuksHeader): DriverInfo {
  return {
    encrypted: true,
    specific: { type: 'luks', data: luksFacts(header) },
  };
}

/** Member `format-specific.data` of LUKS, as QMP spells it. */
export function luksFacts(header: LuksHeader): Readonly<Record<string, unknown>> {
  const { cipher, mode, ivGenerator, ivHash } = header.spec;
  return {
    'ivgen-alg': ivGenerator ?? 'plain64',
    ...(ivHash === null ? {} : { 'ivgen-hash-alg': ivHash }),
    'hash-alg': header.hash,
    'cipher-alg': cipher,
    uuid: header.uuid,
    'cipher-mode': mode,
    slots: header.keyslots.map(({ active, iterations, materialOffset }) => ({
      active,
      ...(active ? { iters: iterations } : {}),
      'key-offset': materialOffset,
      ...(active ? { stripes: STRIPES } : {}),
    })),
    'payload-offset': header.payloadOffset,
    'master-key-iters': header.mkDigestIterations,
  };
}
