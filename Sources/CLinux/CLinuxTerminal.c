#define _GNU_SOURCE
#include "CLinuxTerminal.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/signalfd.h>
#include <termios.h>
#include <unistd.h>

static struct termios before;
static volatile sig_atomic_t is_entered;

static void show(const char *text) {
    // A terminal that is gone needs nothing.
    if (write(STDOUT_FILENO, text, strlen(text)) < 0) return;
}

static void restore_and_die(int number) {
    clinux_terminal_leave();
    // The handler is gone by now (SA_RESETHAND).
    raise(number);
}

int clinux_terminal_enter(void) {
    if (is_entered) return 0;
    if (tcgetattr(STDIN_FILENO, &before) < 0) return -errno;
    struct termios raw = before;
    raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
    raw.c_cc[VMIN] = 1;
    raw.c_cc[VTIME] = 0;
    if (tcsetattr(STDIN_FILENO, TCSANOW, &raw) < 0) return -errno;
    is_entered = 1;
    struct sigaction action = {.sa_handler = restore_and_die, .sa_flags = SA_RESETHAND | SA_NODEFER};
    sigemptyset(&action.sa_mask);
    const int faults[] = {SIGSEGV, SIGBUS, SIGILL, SIGTRAP, SIGFPE, SIGABRT, SIGSYS};
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++) sigaction(faults[i], &action, NULL);
    // Another screen, no cursor, no going on in the next line.
    show("\033[?1049h\033[?25l\033[?7l\033[H\033[2J");
    return 0;
}

void clinux_terminal_leave(void) {
    if (!is_entered) return;
    is_entered = 0;
    show("\033[?7h\033[?25h\033[?1049l");
    tcsetattr(STDIN_FILENO, TCSANOW, &before);
}

int clinux_terminal_signals(void) {
    const int numbers[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGWINCH, SIGTSTP, SIGCONT};
    sigset_t set;
    sigemptyset(&set);
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) sigaddset(&set, numbers[i]);
    if (sigprocmask(SIG_BLOCK, &set, NULL) < 0) return -errno;
    int descriptor = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    return descriptor < 0 ? -errno : descriptor;
}

int clinux_next_signal(int signals) {
    struct signalfd_siginfo info;
    ssize_t count = read(signals, &info, sizeof info);
    return count == sizeof info ? (int)info.ssi_signo : count < 0 ? -errno : -EAGAIN;
}
