// What programs that draw on a terminal need of the C library and Swift's Glibc module does not import. Results are -errno on failure.
#pragma once

/// Has keys come one by one and unseen, and an empty screen of its own that does not scroll, until clinux_terminal_leave or the
/// process ends by a fault.
int clinux_terminal_enter(void);
/// The terminal as it was before; nothing where it is that. A signal handler may call it.
void clinux_terminal_leave(void);
/// A descriptor that can be read once there is a signal: an order to stop, another size, to be suspended, to go on. They do nothing else
/// from then on in this thread and those it starts.
int clinux_terminal_signals(void);
/// The next signal of that descriptor; -EAGAIN without one.
int clinux_next_signal(int signals);
