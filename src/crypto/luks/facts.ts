// SPDX-License-Identifier: Apache-2.0
// What may be told of a LUKS header: its ciphers and keyslots, never anything that is secret.

import type { LuksHeader } from './header.js';
import { STRIPES } from './layout.js';

/** Members as QMP spells them, in the order in which the reference prints them. */
export function luksFacts(header: LuksHeader): Readonly<Record<string, unknown>> {
  const { cipher, mode, ivGenerator, ivHash } = header.spec;
  return {
    'ivgen-alg': ivGenerator ?? 'plain64',
    'hash-alg': header.hash,
    'cipher-alg': cipher,
    uuid: header.uuid,
    ...(ivHash === null ? {} : { 'ivgen-hash-alg': ivHash }),
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
