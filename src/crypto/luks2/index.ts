// SPDX-License-Identifier: Apache-2.0
export { type DeriveArgon2, limitedArgon2 } from './argon2.js';
export { isBackup2, type Luks2Backup, parseBackup2, readBackup2 } from './backup.js';
export { luks2Facts } from './facts.js';
export {
  findLuks2Header,
  headerAreaBytes2,
  isLuks2,
  isSameVolume2,
  type Luks2Header,
  readLuks2Header,
} from './header.js';
export { type Luks2Tools, ownKeyslots, unlockAny2, unlockSlot2 } from './keyslots.js';
export { eraseCopies2, restoreHeader1, restoreHeader2 } from './restore.js';
export { type Luks2DigestEntry, type Luks2Keyslot, type Luks2Segment, specOf } from './metadata.js';
