export { CHARDEV_KINDS, ChardevRegistry, failedToAdd } from './registry.js';
