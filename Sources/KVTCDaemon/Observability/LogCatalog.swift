/// Errors and warnings that an operator may have to act on: each has an id (MESSAGE_ID= in systemd.journal-fields(7)) under which
/// `deploy/systemd/kvtcd.catalog` says what happened, what it means and what to do. An id stays for ever.
package enum LogCatalog {
    /// By the message.
    package static let ids = [
        "cannot start": "5ddc7cbc022947b4871a5b95665a70cc",
        "the daemon hangs": "9e2b9a34e4d74cdf8ca19e6c5a481214",
        "the disk tier does not work; pages stay in RAM until it does": "2232bf233b504d03a02a69879684c17e",
        "the disk tier works again": "bb026aadd9124434a09369580fd91351",
        "flush failed": "5470a6b9283e4f168e57badaef695165",
        "pages are lost: somebody removed, replaced or cut files of the disk tier": "9706df882b4d44f2b0d0e5b53193c902",
        "page corrupt": "e43660242c72472fb8bdd68faab00f5b",
        "page corrupt before encoding": "c716353ee5e64493bcda1726bbc99612",
        "page not encodable": "856e60290d9044d380e2ab76276fd605",
        "page not decodable": "00d03b09f20f4c6481432da96ddd3927",
        "verified": "f5c45a9b1bd649f3a50d597598a2c454",
        "no memory for the rest of the RAM budget: raise the limit of the process, or lower ram.budget":
            "c193235b0b794a5f8f54ffd672e94f72",
        "there is memory for the RAM budget again": "d89b1721861d4718bd88c30dd7a008ae",
        "no memory for an arena": "99fecf5c5cc64f079f760d3ea90f64c1",
        "no memory for a profile's file": "8b4467ce2a9748c8bf3e98b5f6e7a776",
        "session drifts from its profile: calibrate anew with texts like its own, or ask for a lower ratio":
            "2de87e9d908c4a69a944ba05b24ec229",
        "profile left out": "48d5205b89fa421bb796f3cf9fe0585a",
        "profile is kept in memory only, until the daemon ends": "fcec771d65d84ea89cdcfc5f8bca5a63",
        "questionable configuration": "31ece78e01d04e378187b4fee94d26ed",
        "the configuration is wrong: nothing of it is taken over, mend it and reload":
            "ff4b7550052442c1b770285575fca8a9",
        "settings wait for a restart (systemctl restart kvtcd; pages in RAM stay)": "de694fdf603e4038949b487c31797149",
        "configuration read anew": "c0094b77c1874f6b832a9d8b0bacb907",
        "few files may be open: raise the limit (LimitNOFILE=)": "703dfd5861824e25bb2273f358971065",
        "in a user namespace that does not map all users: those it does not map are refused":
            "49f21c637bbe4f59b674f167469d7f7d",
        "accept failed": "d1a82bff52824ead9fd732cd201d7f44",
        "connection refused": "acb50e34bb5947f890782fa68a88f9a0",
        "no thread for a connection": "76a90269d2e5471489ed02e36c632e6b",
        "not everything was written: nothing went on any more": "04f625fb30494c7b82ed711c3ae97ddd",
        "not everything was written": "faa4f0d2e40f4754b91d15693058801a",
        "stopping before all pages were coded": "480b2bde3c86440487a945f91ec2934e",
        "the service manager does not keep an arena": "e48bfadc6ceb4f0e85bda04153d933ad",
        "kept arena dropped": "318d29aacab44040b18b1f2959123bb8",
        "lines were dropped: nobody read the log": "19436f06ef594205aa02ab561f9b1ca2",
    ]
}
