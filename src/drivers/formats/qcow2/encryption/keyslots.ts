// SPDX-License-Identifier: Apache-2.0
// Keyslots of an encrypted image that is open. The clusters they lie in hold nothing else, and the
// image keeps other writers of its file away at all times.

import { noSecrets } from '../../../../block/index.js';
import type { OpenContext } from '../../../../block/index.js';
import { deriveKey } from '../../../../crypto/index.js';
import { HeaderInUse, keyslotIterations } from '../../../../crypto/luks/index.js';
import type { KeyslotChange } from '../../../../crypto/luks/index.js';
import type { LuksAmendMembers } from '../../../../crypto/options.js';
import type { CryptHeader } from './area.js';

export type AmendKeyslots = (options: LuksAmendMembers, change: KeyslotChange) => Promise<void>;

/** `openedWith` is the id of the secret that opened the image. */
export function keyslotsOf(
  { host, secret = noSecrets }: OpenContext,
  crypt: CryptHeader,
  openedWith: string,
): AmendKeyslots {
  const inUse = new HeaderInUse({
    area: crypt.area,
    header: crypt.header,
    detached: true,
    openedWith,
    secret,
    tools: {
      derive: deriveKey,
      fill: (buffer) => host.fillSecret(buffer),
      iterations: ({ spec, hash }, iterTimeMs) =>
        keyslotIterations({ spec, hash, iterTimeMs }, deriveKey, host.clock),
    },
  });
  return async (options, change) => {
    try {
      await inUse.amend(options, change);
    } finally {
      crypt.header = inUse.header;
    }
  };
}
